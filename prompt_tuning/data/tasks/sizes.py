"""The number of rows of each dataset, only for display by `prompt-tuning tasks`.

Rows are as published: for SuperGLUE and GLUE the official files (Wang et al., 2018 and 2019), for
SQuAD version 1.1, for MRQA the out-of-domain development sets (Fisch et al., 2019, table 1), for
DPR, XSum and CNN/DailyMail the authors' splits, for TinyWorld the generated files. A row isn't
always one example: ReCoRD trains on one per answer, WSC only on the positive ones.
"""

from collections.abc import Mapping

_HELD_OUT = ("validation", "test")
_SPLITS = ("train", *_HELD_OUT)
_TINYWORLD = ("boolq", "cb", "copa", "record", "rte", "wic", "wsc")


def _sizes(*counts: int) -> dict[str, int]:
    """Names the counts: train, validation and test; the last two; or only validation."""
    splits = {3: _SPLITS, 2: _HELD_OUT, 1: ("validation",)}[len(counts)]
    return dict(zip(splits, counts, strict=True))


SIZES: Mapping[str, Mapping[str, int]] = {
    "superglue_boolq": _sizes(9427, 3270, 3245),
    "superglue_cb": _sizes(250, 56, 250),
    "superglue_copa": _sizes(400, 100, 500),
    "superglue_multirc": _sizes(27243, 4848, 9693),
    "superglue_record": _sizes(100730, 10000, 10000),
    "superglue_rte": _sizes(2490, 277, 3000),
    "superglue_wic": _sizes(5428, 638, 1400),
    "superglue_wsc": _sizes(554, 104, 146),
    "superglue_axb": {"test": 1104},
    "superglue_axg": {"test": 356},
    "glue_cola": _sizes(8551, 1043, 1063),
    "glue_sst2": _sizes(67349, 872, 1821),
    "glue_mrpc": _sizes(3668, 408, 1725),
    "glue_qqp": _sizes(363849, 40430, 390965),
    "glue_stsb": _sizes(5749, 1500, 1379),
    "glue_mnli": _sizes(392702, 9815, 9796),
    "glue_mnli_mismatched": _sizes(9832, 9847),
    "glue_qnli": _sizes(104743, 5463, 5463),
    "glue_rte": _sizes(2490, 277, 3000),
    "glue_wnli": _sizes(635, 71, 146),
    "glue_ax": {"test": 1104},
    "glue_mrpc_from_qqp": _sizes(408),
    "glue_qqp_from_mrpc": _sizes(40430),
    "squad": {"train": 87599, "validation": 10570},
    "mrqa_textbook_qa": _sizes(1503),
    "mrqa_bio_asq": _sizes(1504),
    "mrqa_race": _sizes(674),
    "mrqa_relation_extraction": _sizes(2948),
    "mrqa_duo_rc": _sizes(1501),
    "mrqa_drop": _sizes(1503),
    "dpr": {"train": 1322, "validation": 564},
    "xsum": _sizes(204045, 11332, 11334),
    "cnn_dailymail": _sizes(287113, 13368, 11490),
    **{f"tinyworld_{name}": _sizes(2000, 400, 400) for name in _TINYWORLD},
    "tinyworld_multirc": _sizes(8000, 1600, 1600),
    **{f"tinyworld_qa_{land}": _sizes(2000, 400, 400) for land in ("north", "south", "east")},
    **{f"tinyworld_same_{kind}": _sizes(2000, 400, 400) for kind in ("questions", "claims")},
}
"""Rows of each split, by the task's name."""
