"""The figures of metrics.json as a readable table."""

from rich.table import Table


def table(metrics: dict) -> Table:
    """Every figure with its 95 % interval, beside its chance or baseline."""
    title = f"{metrics['codes']} codes, step {metrics['step']}, {metrics['images']} images"
    out = Table("what", "figure", "chance or baseline", title=title)
    if metrics.get("new_classes"):
        _new_classes(out, metrics["new_classes"])
        return out
    out.add_row("reconstruction", _images(metrics["reconstruction"]), "")
    for direction in ("leakage", "informativeness"):
        for name, found in (metrics[direction] or {}).items():
            factors = found if name.startswith("content_from") else {"": found}
            for factor, result in factors.items():
                label = f"{direction}: {name.replace('_', ' ')} {factor}".strip()
                out.add_row(label, *_probe_cells(result))
    _transfer(out, metrics["transfer"])
    _samples(out, metrics.get("samples"))
    return out


def _transfer(out: Table, transfer: dict | None) -> None:
    if transfer is None:
        out.add_row("transfer", "not measured", "no content label occurs in two classes")
        return
    baselines = (
        f"class mean {transfer['class_mean_psnr']:.2f} dB, "
        f"content image unchanged {transfer['copy_content_psnr']:.2f} dB"
    )
    out.add_row(f"transfer ({transfer['pairs']} pairs)", _images(transfer), baselines)


def _samples(out: Table, samples: dict | None) -> None:
    if samples is None:
        return
    if "missing" in samples:
        out.add_row("samples", "not measured", samples["missing"])
        return
    real = samples["real"]
    for name in ("mixture", "training", "mixture_new_classes"):
        if name in samples:
            out.add_row(
                f"samples: {name.replace('_', ' ')} ({samples['images']} images)",
                _quality(samples[name]), f"real images {_quality(real)}",
            )  # fmt: skip


def _quality(found: dict) -> str:
    low, high = found["interval"]
    return (
        f"kernel distance {found['kernel_distance']:.4f} [{low:.4f}, {high:.4f}], "
        f"precision {found['precision']:.2f}, recall {found['recall']:.2f}"
    )


def _new_classes(out: Table, found: dict) -> None:
    baselines = (
        f"mean of the shots {found['shots_mean_psnr']:.2f} dB, "
        f"content image unchanged {found['copy_content_psnr']:.2f} dB"
    )
    what = f"fit from {found['shots']} images, {found['classes']} classes, {found['pairs']} pairs"
    out.add_row(what, _images(found), baselines)
    if found["encoder_one_image"] is not None:
        out.add_row("class encoder, one image", _images(found["encoder_one_image"]), baselines)


def _images(figures: dict) -> str:
    low, high = figures["interval"]["psnr"]
    perceptual = figures["perceptual"]
    shown = "" if perceptual is None else f", perceptual {perceptual:.3f}"
    return f"{figures['psnr']:.2f} [{low:.2f}, {high:.2f}] dB, SSIM {figures['ssim']:.3f}{shown}"


def _probe_cells(result: dict | None) -> tuple[str, str]:
    if result is None:
        return "not measured", "too few images of a label"
    low, high = result["accuracy_interval"]
    figure = (
        f"{result['accuracy']:.3f} [{low:.3f}, {high:.3f}] (linear), "
        f"{result['mlp_accuracy']:.3f} (MLP)"
    )
    return figure, f"{result['chance']:.3f} ({result['scored_on']} images scored)"
