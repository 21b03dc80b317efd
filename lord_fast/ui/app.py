"""The app of `lord-fast ui`, made with Gradio. It also runs as a hosted Space."""

import importlib.util
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lord_fast.lord import Lord
from lord_fast.ui.model import Model

ABOUT = (
    "The **class** is who or what an image shows. The **content** is everything else, such as "
    "pose, light or expression."
)
NO_ENCODERS = "This model has no encoders. Train them with `lord-fast train-encoders RUN`."


def check_gradio() -> None:
    """Check that Gradio is installed.

    Raises:
        ValueError: Gradio is missing.
    """
    if importlib.util.find_spec("gradio") is None:
        raise ValueError("lord-fast ui: gradio is missing; pip install 'lord-fast[ui]'")


def build(lord: Lord, title: str = "lord-fast") -> Any:
    """Build the app, a `gradio.Blocks`. Call `launch` on the result.

    Args:
        lord: A trained model. Swaps of photos need its encoders.
        title: Title of the page.

    Raises:
        ValueError: Gradio is missing.
    """
    check_gradio()
    import gradio as gr

    model = Model(lord)
    with gr.Blocks(title=title, analytics_enabled=False) as app:
        gr.Markdown(f"# {title}\n{ABOUT}")
        class_code = gr.State(lord.class_codes[0].cpu())
        with gr.Tab("Swap two photos"):
            _swap_tab(gr, model)
        with gr.Tab("Explore"):
            show, classes = _explore_tab(gr, model, class_code)
        with gr.Tab("New class"):
            fitted = _new_class_tab(gr, model, class_code)
        # No class of training is selected any more.
        fitted.then(lambda: gr.Gallery(selected_index=None), None, classes).then(**show)
        app.load(**show)
    return app


def _swap_tab(gr: Any, model: Model) -> None:
    if not model.can_encode:
        gr.Markdown(NO_ENCODERS)
        return
    with gr.Row():
        content = gr.Image(type="filepath", label="Content of this photo", elem_id="content")
        class_ = gr.Image(type="filepath", label="Class of this photo", elem_id="class")
        result = gr.Image(label="Result", interactive=False, elem_id="swapped", format="png")

    def swap(content: str | None, class_: str | None) -> Any:
        if content is None or class_ is None:
            return None
        with _shown(gr):
            return model.swap(Path(content), Path(class_))

    for photo in (content, class_):
        photo.change(swap, [content, class_], result)


def _explore_tab(gr: Any, model: Model, class_code: Any) -> tuple[dict[str, Any], Any]:
    with gr.Row():
        with gr.Column():
            result = gr.Image(label="Result", interactive=False, elem_id="moved", format="png")
            classes = gr.Gallery(
                model.class_pictures(), label="Choose a class", columns=5, height=280,
                allow_preview=False, elem_id="classes", format="png",
            )  # fmt: skip
        with gr.Column():
            sliders = [
                gr.Slider(-3, 3, 0, step=0.1, label=f"Direction {i + 1}", elem_id=f"direction{i}")
                for i in range(len(model.directions))
            ]
            reset = gr.Button("Back to the mean")

    def move(class_code: Any, *steps: float) -> Any:
        return model.move(class_code, steps)

    def choose(event: gr.SelectData) -> Any:
        return model.lord.class_codes[event.index].cpu()

    choose.__annotations__ = {"event": gr.SelectData}  # Gradio reads the annotation.
    show = {"fn": move, "inputs": [class_code, *sliders], "outputs": result}
    for slider in sliders:
        slider.input(**show, trigger_mode="always_last", show_progress="hidden")
    classes.select(choose, None, class_code).then(**show)
    reset.click(lambda: [0] * len(sliders), None, sliders).then(**show)
    return show, classes


def _new_class_tab(gr: Any, model: Model, class_code: Any) -> Any:
    gr.Markdown(
        "Drop a few photos of someone or something that training has not seen. Its code is fitted "
        "to them, which takes a while on a CPU. Then it is selected in *Explore* too."
    )
    photos = gr.File(file_count="multiple", label="Photos of the new class", elem_id="photos")
    fit = gr.Button("Fit", variant="primary", elem_id="fit")
    found = gr.Gallery(
        label="The new class with contents of training", columns=4, elem_id="fitted", format="png"
    )

    def fit_class(photos: list[str] | None, progress: Any = None) -> Any:
        if not photos:
            raise gr.Error("Drop photos first.")
        tell: Callable = progress or (lambda *_, **__: None)
        with _shown(gr):
            code = model.fit_class(
                [Path(photo) for photo in photos], lambda done, total: tell((done, total))
            )
        return code, model.in_contents(code)

    fit_class.__defaults__ = (gr.Progress(),)  # Gradio injects the progress by this default.
    return fit.click(fit_class, photos, [class_code, found])


def serve(
    app: Any, host: str, port: int, browser: bool, started: Callable[[str], object] = print
) -> None:
    """Serve an app until Ctrl-C.

    Args:
        app: The result of `build`.
        host: Address to listen on.
        port: Port to listen on. 0 chooses a free one.
        browser: Whether to open the app in the browser.
        started: Called with the address when the app is ready.

    Raises:
        ValueError: The port is not free.
    """
    try:
        _, url, _ = app.launch(
            server_name=host, server_port=port or _free_port(host), inbrowser=browser, quiet=True,
            prevent_thread_lock=True, show_error=True, share=False,
        )  # fmt: skip
    except OSError as error:
        raise ValueError(f"--port {port}: not free on {host}; give another, or 0") from error
    started(url)
    app.block_thread()


def _free_port(host: str) -> int:
    with socket.socket() as free:
        free.bind((host, 0))
        return free.getsockname()[1]


@contextmanager
def _shown(gr: Any) -> Iterator[None]:
    """Show bad input in the app instead of a traceback in the terminal."""
    try:
        yield
    except ValueError as error:
        raise gr.Error(str(error)) from error
