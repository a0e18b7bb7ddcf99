"""What a model computes in where nobody says: bfloat16 where the machine multiplies it fast, float32 elsewhere."""


def precision_of(wanted: str) -> str:
    """`wanted`, or for "auto" the name of a torch dtype: bfloat16 on CUDA and on processors with AMX or AVX512-BF16, else float32.

    Without such instructions bfloat16 is emulated: several times slower than float32, and less exact.
    """
    if wanted != "auto":
        return wanted
    import torch

    if torch.cuda.is_available():
        return "bfloat16"
    fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bfloat16" if fast else "float32"
