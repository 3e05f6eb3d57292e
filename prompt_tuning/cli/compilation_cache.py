"""Keeps compiled programs between commands: JAX's persistent compilation cache, in a user folder.

Beside the token ids, in `$PROMPT_TUNING_CACHE`, or `prompt_tuning` in `$XDG_CACHE_HOME` or
`~/.cache`. The folder may be deleted at any time. Whoever has set JAX's own
`JAX_COMPILATION_CACHE_DIR` keeps it; `--gin.compilation_cache.enabled=False` and JAX's own
`JAX_ENABLE_COMPILATION_CACHE=false` switch it off.
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
    """Makes JAX cache compiled programs from now on.

    Args:
      enabled: False changes nothing.
      folder: None takes the user's cache folder; nothing is kept if that can't be written.

    Returns:
      The folder, or None where JAX was left as it is.

    Raises:
      UserError: the given folder can't be written.
    """
    if not enabled or jax.config.values["jax_compilation_cache_dir"] is not None:
        return None
    path = Path(folder) if folder else default_cache_dir() / "compiled" / _processor()
    try:
        with writing(path, fix="Set compilation_cache.folder to one that can be."):
            path.mkdir(parents=True, exist_ok=True)
            if not os.access(path, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except UserError:
        if folder:
            raise
        return None
    jax.config.update("jax_compilation_cache_dir", str(path))
    # Small programs too: a start compiles dozens, none of which takes long by itself.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    return path


def _processor() -> str:
    """Names this kind of processor.

    Programs for the CPU use its instructions, and a home folder may be shared by machines that
    differ in them, which JAX's key doesn't distinguish.
    """
    features = platform.processor()
    info = Path("/proc/cpuinfo")
    if info.exists():
        text = info.read_text()
        features = next((line for line in text.splitlines() if line.startswith("flags")), features)
    return f"{platform.machine()}-{hashlib.sha256(features.encode()).hexdigest()[:8]}"
