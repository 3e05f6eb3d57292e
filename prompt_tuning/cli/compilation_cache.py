"""JAX's persistent compilation cache, in a user folder.

It is next to the token ids, in `$PROMPT_TUNING_CACHE`, or `prompt_tuning` in `$XDG_CACHE_HOME` or
`~/.cache`, and may be deleted at any time. JAX's own `JAX_COMPILATION_CACHE_DIR` takes precedence.
`--gin.compilation_cache.enabled=False` or `JAX_ENABLE_COMPILATION_CACHE=false` disables it.
"""

import errno
import hashlib
import os
import platform
from pathlib import Path

import jax

from prompt_tuning.cli.gin_config import register
from prompt_tuning.errors import UserError
from prompt_tuning.files import default_cache_dir, writing
from prompt_tuning.settings import Free


@register
def compilation_cache(enabled: Free[bool] = True, folder: Free[str | None] = None) -> Path | None:
    """Enables caching of compiled programs.

    Args:
      enabled: False changes nothing.
      folder: None is the user's cache folder; if it isn't writable, nothing is cached.

    Returns:
      The folder, or None if JAX's configuration is unchanged.

    Raises:
      UserError: the given folder can't be written.
    """
    if not enabled or jax.config.values["jax_compilation_cache_dir"] is not None:
        return None
    path = Path(folder) if folder else default_cache_dir() / "compiled" / _processor()
    try:
        with writing(path, fix="Set compilation_cache.folder to a writable folder."):
            path.mkdir(parents=True, exist_ok=True)
            if not os.access(path, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except UserError:
        if folder:
            raise
        return None
    jax.config.update("jax_compilation_cache_dir", str(path))
    # Cache small programs too: startup compiles dozens of them, each quickly.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    return path


def _processor() -> str:
    """Returns a name for this type of processor.

    CPU programs use its instruction set. Machines with different ones may share a home folder,
    and JAX's cache key doesn't distinguish them.
    """
    features = platform.processor()
    info = Path("/proc/cpuinfo")
    if info.exists():
        text = info.read_text()
        features = next((line for line in text.splitlines() if line.startswith("flags")), features)
    return f"{platform.machine()}-{hashlib.sha256(features.encode()).hexdigest()[:8]}"
