"""What a file really is, read from its headers and never from its name: no codec needed.

    >>> picture = read_picture(file, size_bytes)
    >>> picture.kind.name, picture.width, picture.turned, picture.metadata
    ('JPEG', 4032, True, ('the place where it was taken (GPS)', 'camera data (EXIF)'))

Whatever the bytes are, the answer is facts or `NotUsable`, soon and in little memory.
"""

from dropreel.kinds import Kind, Medium, NotUsable
from dropreel.pictures import Picture, read_picture
from dropreel.recordings import Sound, read_recording

__all__ = ["Kind", "Medium", "NotUsable", "Picture", "Sound", "read_picture", "read_recording"]
