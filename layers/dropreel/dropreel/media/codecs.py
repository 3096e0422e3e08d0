"""The codecs for pictures and recordings. Only the function with the media layer imports this."""

from functools import partial

from dropreel.media.opened import PictureFacts, SoundFacts
from dropreel.media.picture import Picture
from dropreel.media.shut_in import Codec
from dropreel.media.sound import Sound
from dropreel.model.catalog import AudioLimits, Catalog, ImageLimits

PICTURE = Codec("picture", Picture, PictureFacts, ImageLimits)


def sound(catalog: Catalog) -> Codec[SoundFacts]:
    """Keeps as much of a recording as the longest that an offer takes."""
    offers = (offer for model in catalog.values() for offer in model.route)
    longest_seconds = max(
        (offer.audio.longest_seconds for offer in offers if offer.audio), default=0
    )
    return Codec("recording", partial(Sound, max_seconds=longest_seconds), SoundFacts, AudioLimits)
