"""The tasks of this package under their names in SeqIO's registries, for T5X's gin files."""

import functools

from prompt_tuning.data.seqio_tasks import register
from prompt_tuning.data.vocabulary_files import find_vocabulary

# T5X compares the vocabularies of the model and of the task, some of which only equal themselves.
read_vocabulary = functools.cache(find_vocabulary)


@functools.cache
def registered(mixture_or_task: str, vocabulary: str, data_dir: str | None = None) -> str:
    """Registers all tasks and mixtures with SeqIO, and returns the name of one.

    Args:
      mixture_or_task: its name.
      vocabulary: any source that `find_vocabulary` accepts.
      data_dir: the data folder of a task that reads files.
    """
    register(read_vocabulary(vocabulary), {mixture_or_task: data_dir})
    return mixture_or_task
