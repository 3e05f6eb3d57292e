"""Matrix products are counted as often as they run."""

import jax
import jax.numpy as jnp

from prompt_tuning.models.flash_attention import bias_tables, cost, flash_attention
from prompt_tuning.training.flops import matmul_flops

A, B = jnp.ones((3, 4)), jnp.ones((4, 5))
ONE = 2 * 3 * 4 * 5


def count(function, *arguments):
    return matmul_flops(jax.make_jaxpr(function)(*arguments))


def test_a_product_and_a_batch_of_them():
    assert count(jnp.matmul, A, B) == ONE
    batch = jnp.ones((7, 3, 4)), jnp.ones((7, 4, 5))
    assert count(lambda a, b: jnp.einsum("nij,njk->nik", a, b), *batch) == 7 * ONE


def test_the_gradient_of_one_argument_is_one_more_product():
    assert count(jax.grad(lambda a: jnp.sum(jnp.sin(a @ B))), A) == 2 * ONE


def test_loops_branches_and_functions_inside():
    square = jnp.ones((4, 4))

    def loop(a):
        return jax.lax.scan(lambda x, _: (jax.jit(jnp.matmul)(x, square), None), a, length=6)[0]

    assert count(loop, A) == 6 * 2 * 3 * 4 * 4
    branches = lambda a: jax.lax.cond(True, lambda x: x @ B @ B.T, lambda x: x, a)  # noqa: E731
    assert count(branches, A) == 2 * ONE
    assert count(jax.checkpoint(loop), A) == 6 * 2 * 3 * 4 * 4


def test_kernels_and_shards():
    query = jnp.ones((2, 3, 128, 64))
    tables = bias_tables(jnp.ones((3, 255)), 128, 128)
    attend = (flash_attention, query, query, query, tables, jnp.ones((2, 128), bool))
    assert count(*attend) == cost(2, 3, 128, 128, 64, 4, backward=False).flops
    mesh = jax.make_mesh((1,), ("data",))
    spec = jax.sharding.PartitionSpec()
    shard = jax.shard_map(jnp.matmul, mesh=mesh, in_specs=spec, out_specs=spec)
    assert count(shard, A, B) == ONE


def test_what_is_no_matrix_product_is_not_counted():
    assert count(lambda a: jnp.sum(jnp.exp(a) * a), A) == 0
