"""Capacities that CUDA offered on real cards, from texts that other people published: facts that the catalogue must not exceed.

`CUDA_GIB` are the "total capacity" figures of torch's out-of-memory texts, GiB with two decimals; `DRIVER_MIB` are the totals
that nvidia-smi shows for these cards.
"""

from __future__ import annotations

CUDA_GIB = {
    "rtx-4090": ((23.64, "ali-vilab/VGen#104"), (23.64, "TMElyralab/MuseTalk#76"), (23.49, "Sautenich/UAV-VLA#7")),
    "rtx-3090": ((23.70, "GaoLii/DSP#10"),),
    "rtx-3080-10": ((9.78, "zai-org/CogVideo#34"),),
    "rtx-3080-ti": ((11.76, "mk-minchul/AdaFace#123"),),
    "rtx-3070": ((7.78, "akshitac8/OW-DETR#46"),),
    "rtx-5090": ((31.37, "Wan-Video/Wan2.1#465"),),
    "rtx-2080-ti": ((10.76, "JDAI-CV/image-captioning#11"),),
    "rtx-a4000": ((15.61, "DengKaiCQ/VGGT-Long#6"),),
    "rtx-6000-ada": ((44.43, "DINGYANB/MTVCrafter#21"),),
    "a100-40": ((39.50, "TianheWu/CoSeR#10"),),
    "a100-80": ((79.25, "wbfwonderful/Vad-R1#11"), (79.14, "lianqi1008/Control-GIC#6")),
    "a30": ((23.53, "google/RB-Modulation#5"),),
    "t4": ((14.75, "hpcaitech/Open-Sora#697"), (14.56, "Zheng-Chong/CatVTON#133"), (14.56, "AlphaGPU/leetgpu-challenges#52")),
    "h100-sxm": ((79.11, "vllm-project/vllm#27508"),),
    "h100-nvl": ((93.00, "ali-vilab/VACE#56"),),
    "h20": ((95.00, "modelscope/DiffSynth-Studio#1238"),),
    "l40": ((44.40, "NVlabs/Eagle#68"),),
    "v100-16": ((15.75, "Morizeyao/GPT2-Chinese#215"),),
    "v100-32": ((31.74, "liucongg/ChatGLM-Finetuning#73"),),
    "b200": ((178.35, "pytorch/ao#4002"),),
    "gh200": ((94.50, "vllm-project/vllm#9630"),),
}

DRIVER_MIB = {
    "rtx-4090": 24564,
    "rtx-3090": 24576,
    "rtx-3080-10": 10240,
    "rtx-3080-ti": 12288,
    "rtx-3070": 8192,
    "rtx-5090": 32607,
    "rtx-2080-ti": 11264,
    "rtx-a4000": 16376,
    "rtx-6000-ada": 46068,
    "a100-40": 40960,
    "a100-80": 81920,
    "a30": 24576,
    "t4": 15360,
    "h100-sxm": 81559,
    "h100-nvl": 95830,
    "h20": 97871,
    "l40": 46068,
    "v100-16": 16384,
    "v100-32": 32768,
    "b200": 183359,
}
"""GH200 is missing: 1,108 MiB of its 97,871 are kept, more than the rule says."""
