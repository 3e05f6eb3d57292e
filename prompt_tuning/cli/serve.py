"""`prompt-tuning serve`: serves one frozen model with all prompts of a folder over HTTP.

`prompt_tuning/serving/app.py` and docs/serving.md describe the interface.
"""

from collections.abc import Sequence

from prompt_tuning.cli import configurables, loading
from prompt_tuning.cli.parsers import parse
from prompt_tuning.errors import UserError, at_least, listed
from prompt_tuning.recipes.predictors import make_predictor
from prompt_tuning.recipes.say import say
from prompt_tuning.recipes.task_file import task_of_prompt
from prompt_tuning.serving.batching import BatchingOptions
from prompt_tuning.serving.limits import Limits
from prompt_tuning.serving.prompt_folder import PromptFolder
from prompt_tuning.serving.warm_up import warm_up


def main(argv: Sequence[str]) -> None:
    """Runs the command until it is stopped."""
    args = parse("serve", argv)
    for name, least in {"max_wait": 0, "max_queue": 1, "max_examples": 1, "max_body": 1}.items():
        at_least(least, {f"--{name}": getattr(args, name)})
    if args.max_examples > args.max_queue:
        raise UserError(
            f"--max_examples is {args.max_examples}, but the queue has room for {args.max_queue}; "
            "such a request could never be accepted. Raise --max_queue."
        )
    # They need optional packages.
    try:
        from prompt_tuning.serving import server
        from prompt_tuning.serving.app import create_app
    except ModuleNotFoundError as error:
        raise UserError(
            f"The server needs {error.name}, which isn't installed: pip install "
            "'.[serve]', in a checkout of this package."
        ) from error

    limits = Limits(body_bytes=args.max_body, examples=args.max_examples)
    # Bind the address first: a port in use is reported before the model is loaded.
    with server.listen(args.host, args.port) as bound:
        loading.load_config(args, defaults=[loading.MANY_PROMPTS])
        data = configurables.predictor()
        prediction = configurables.predict(data)
        base = loading.load_base(data)
        predictor = make_predictor(base, data, prediction)
        batching = BatchingOptions(
            max_size=predictor.batch_size, max_wait=args.max_wait / 1000, max_queue=args.max_queue
        )
        folder = PromptFolder(args.folder, predictor, task_of_prompt, ranks=prediction.rank)
        refused = folder.rescan().refused
        if not predictor.prompts:
            if refused:
                name, why = next(iter(refused.items()))
                raise UserError(
                    f"None of the {len(refused)} prompts in {args.folder} can be served; "
                    f"'{name}': {why}"
                )
            raise UserError(
                f"{args.folder} contains no prompts; add NAME.safetensors or NAME.npy files."
            )
        for name, why in refused.items():
            say(f"The prompt '{name}' is skipped: {why}")
        if args.warm_up:
            say(f"Compiling for inputs of up to {args.warm_up} tokens (--warm_up) ...")
            warm_up(predictor, args.warm_up)
        if not server.is_loopback(bound):
            say(f"Anyone who can reach {args.host} can use this server: it has no authentication.")

        def started() -> None:
            names = listed(sorted(predictor.prompts))
            say(f"Serving {base.config.name} at {server.url_of(bound)}; prompts: {names}")

        app = create_app(predictor, folder, limits=limits, batching=batching)
        server.serve(app, bound, started)
    say("Stopped.")
