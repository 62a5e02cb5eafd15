"""The records of a zip archive without compression, as bytes: headers, entries, the end.

    header, data | header, data | … | entry, entry, … | end

Sizes and positions of 4 GiB and more go into the format's 64-bit fields. The checksums are zero:
torch does not compare them, and a checkpoint's sidecar has a stronger one.
"""

import struct

ALIGNMENT = 64  # bytes, of all data in the file; torch's own value
_LOCAL, _CENTRAL, _END = 0x04034B50, 0x02014B50, 0x06054B50
_END64, _LOCATOR64 = 0x06064B50, 0x07064B50
_LARGE, _MANY = 0xFFFFFFFF, 0xFFFF  # "see the 64-bit field"
_VERSION = 45  # of the zip format: 64-bit sizes
_HEADER = struct.Struct("<IHHHHHIIIHH")
_ENTRY = struct.Struct("<IHHHHHHIIIHHHHHII")


def local_header(name: str, size: int, position: int) -> bytes:
    """Return the header at `position` of the file `name`, padded so that its data is aligned."""
    path = name.encode()
    large = struct.pack("<HHQQ", 1, 16, size, size) if size >= _LARGE else b""
    padding = -(position + 30 + len(path) + len(large) + 4) % ALIGNMENT
    extra = large + struct.pack("<2sH", b"FB", padding) + b"Z" * padding  # as torch pads
    short = _LARGE if large else size
    header = _HEADER.pack(
        *(_LOCAL, _VERSION, 0, 0, 0, 0),  # stored, no time
        *(0, short, short, len(path), len(extra)),
    )
    return header + path + extra


def central_entry(name: str, size: int, position: int) -> bytes:
    """Return the entry of a file, whose header is at `position`, in the archive's directory."""
    path = name.encode()
    wide = b""
    short_size, short_position = size, position
    if size >= _LARGE:
        wide += struct.pack("<QQ", size, size)
        short_size = _LARGE
    if position >= _LARGE:
        wide += struct.pack("<Q", position)
        short_position = _LARGE
    extra = struct.pack("<HH", 1, len(wide)) + wide if wide else b""
    entry = _ENTRY.pack(
        *(_CENTRAL, _VERSION, _VERSION, 0, 0, 0, 0),
        *(0, short_size, short_size, len(path), len(extra)),
        *(0, 0, 0, 0, short_position),
    )
    return entry + path + extra


def end(entries: int, size: int, position: int) -> bytes:
    """Return what ends the archive, behind a directory of `entries` in `size` bytes."""
    wide = b""
    if position >= _LARGE or entries >= _MANY:
        wide = struct.pack(
            "<IQHHIIQQQQ", _END64, 44, _VERSION, _VERSION, 0, 0, entries, entries, size, position
        ) + struct.pack("<IIQI", _LOCATOR64, 0, position + size, 1)
    short = min(entries, _MANY)
    return wide + struct.pack("<IHHHHIIH", _END, 0, 0, short, short, size, min(position, _LARGE), 0)
