"""How many videos a GPU decodes at once."""

from __future__ import annotations

import ctypes

# cudaVideoCodec of NVIDIA's cuviddec.h (Video Codec SDK 13), by FFmpeg's names.
CODECS = {"mpeg2video": 1, "mpeg4": 2, "h264": 4, "hevc": 8, "vp8": 9, "vp9": 10}
YUV_420 = 1  # cudaVideoChromaFormat_420


class DecoderCaps(ctypes.Structure):
    """CUVIDDECODECAPS of cuviddec.h: first what is asked, then what the driver answers."""

    _fields_ = (
        ("codec_type", ctypes.c_int),
        ("chroma_format", ctypes.c_int),
        ("bit_depth_minus_8", ctypes.c_uint),
        ("reserved_1", ctypes.c_uint * 3),
        ("is_supported", ctypes.c_ubyte),
        ("num_nvdecs", ctypes.c_ubyte),
        ("output_format_mask", ctypes.c_ushort),
        ("max_width", ctypes.c_uint),
        ("max_height", ctypes.c_uint),
        ("max_macroblocks", ctypes.c_uint),
        ("min_width", ctypes.c_ushort),
        ("min_height", ctypes.c_ushort),
        ("reserved_2", ctypes.c_uint * 11),
    )


def count_engines(device: str, codec: str) -> int:
    """Returns how many NVDEC engines of a GPU decode a codec, by its driver; 1 where that does not say.

    Args:
        device: `cuda` or `cuda:N`.
        codec: FFmpeg's name.
    """
    import torch

    with torch.cuda.device(device):
        # The driver answers for this thread's context, which a call of the runtime makes; torch may have memory left.
        torch.cuda.mem_get_info(device)
        try:
            return ask_driver(ctypes.CDLL("libnvcuvid.so.1"), codec)
        except OSError:
            return 1


def ask_driver(library: ctypes.CDLL, codec: str) -> int:
    """Returns how many engines decode a codec with 8 bits and 4:2:0; 1 where the driver does not say."""
    caps = DecoderCaps(codec_type=CODECS.get(codec, CODECS["h264"]), chroma_format=YUV_420)
    failed = library.cuvidGetDecoderCaps(ctypes.byref(caps))
    return max(1, caps.num_nvdecs) if not failed and caps.is_supported else 1
