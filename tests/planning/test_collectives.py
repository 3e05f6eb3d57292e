"""Reading the collectives of a program, on lines as XLA writes them."""

import jax
import pytest
from jax.sharding import AxisType

from prompt_tuning.planning.hlo import Program

TEXT = """HloModule jit_step, num_partitions=8

%add (x: f32[], y: f32[]) -> f32[] {
  %x = f32[] parameter(0)
  ROOT %sum = f32[] add(%x, %y)
}

%layer (carry: (s32[], f32[4,10,16])) -> (s32[], f32[4,10,16]) {
  %r = f32[4,10,16]{2,1,0} all-reduce(%dot), channel_id=1, GROUPS, to_apply=%add, metadata={}
  %w = bf16[16,2,4]{2,1,0} all-gather(%slice), channel_id=2, replica_groups=[4,2]<=[2,4]T(1,0)
  ROOT %t = (s32[], f32[4,10,16]) tuple(%i, %r)
}

%more (carry: (s32[], f32[4,10,16])) -> pred[] {
  ROOT %less = pred[] compare(%i, %n), direction=LT
}

ENTRY %main (p: f32[3,16]) -> f32[3,16] {
  %while.1 = (s32[], f32[4,10,16]) while(%t), condition=%more, body=%layer, \
backend_config={"known_trip_count":{"n":"24"}}
  %g = (f32[3,16]{1,0}, f32[]) all-reduce(%a, %b), channel_id=3, \
replica_groups={{0,4},{1,5},{2,6},{3,7}}, to_apply=%add
  %s = s32[4]{0} collective-permute(%c), channel_id=4, source_target_pairs={{0,4},{4,0}}
  %all = f32[2] all-reduce-start(%d), channel_id=5, replica_groups={}, to_apply=%add
  ROOT %e = f32[3,16]{1,0} get-tuple-element(%g), index=0
}
"""
ACROSS_MODEL = {
    "braces": "replica_groups={{0,1,2,3},{4,5,6,7}}",
    "a shape": "replica_groups=[2,4]<=[8]",
    "a mesh": "replica_groups=mesh['axis_0'=2,'axis_1'=1,'axis_2'=4] {'axis_2'}",
    "a mesh in another order": (
        "replica_groups=mesh['axis_0'=4,'axis_1'=1,'axis_2'=2], device_ids=([2,4]T(1,0)) {'axis_0'}"
    ),
}


def mesh():
    return jax.sharding.AbstractMesh((2, 4), ("data", "model"), axis_types=(AxisType.Auto,) * 2)


@pytest.mark.parametrize("groups", ACROSS_MODEL.values(), ids=ACROSS_MODEL)
def test_kinds_axes_bytes_and_times(groups):
    found = Program(TEXT.replace("GROUPS", groups)).collectives(mesh())
    read = [(one.kind, one.axes, one.bytes, one.times) for one in found]
    assert sorted(read) == [
        ("all-gather", ("data",), 2 * 16 * 2 * 4, 24),
        ("all-reduce", ("data",), 4 * (3 * 16 + 1), 1),
        ("all-reduce", ("data", "model"), 8, 1),
        ("all-reduce", ("model",), 4 * 4 * 10 * 16, 24),
        ("collective-permute", ("data",), 16, 1),
    ]


def test_groups_in_a_form_that_is_not_known_are_not_guessed():
    with pytest.raises(ValueError, match="Can't read the groups"):
        list(Program(TEXT.replace("GROUPS", "replica_groups=ring[8]")).collectives(mesh()))
