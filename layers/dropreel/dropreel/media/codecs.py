"""The codecs for pictures and recordings. Only the function with the media layer imports this."""

from functools import partial

from dropreel.media.opened import PictureFacts, SoundFacts
from dropreel.media.picture import Picture
from dropreel.media.shut_in import Codec
from dropreel.media.sound import Sound
from dropreel.model.catalog import MODELS, AudioLimits, ImageLimits

_DURATIONS = [
    offer.audio.duration_at_most_seconds or offer.audio.duration_under_seconds or 0
    for model in MODELS.values()
    for offer in model.route
    if offer.audio
]

PICTURE = Codec("picture", Picture, PictureFacts, ImageLimits)
SOUND = Codec("recording", partial(Sound, max_seconds=max(_DURATIONS)), SoundFacts, AudioLimits)
