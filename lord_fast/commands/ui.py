"""lord-fast ui."""

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional

from lord_fast.bounds import AtLeast, Below
from lord_fast.console import err


def ui(
    run: Positional[Path],
    host: str = "127.0.0.1",
    port: Annotated[int, AtLeast(0), Below(65536)] = 7860,
    browser: bool = True,
) -> None:
    """Play with a trained model in the browser.

    Swap two photos, move the content, choose or fit a class. Ctrl-C ends it.

    Examples:
        lord-fast ui runs/photos

    Args:
        run: The run's folder, or an exported model.
        host: Address to listen on. 0.0.0.0 lets other machines in, which then can use the model.
        port: Port to listen on. 0 chooses a free one.
        browser: Open the app in the browser.
    """
    from lord_fast.ui.app import check_gradio

    check_gradio()
    from lord_fast.apply.process import open_model
    from lord_fast.ui.app import build, serve

    app = build(open_model(run), run.resolve().name)
    serve(app, host, port, browser, lambda url: err.print(f"{run}: {url} (Ctrl-C ends it)"))
