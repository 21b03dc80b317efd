"""Formats the metrics of the literature on disentanglement for the terminal and the report."""

Row = tuple[str, str, str]
"""A metric's name, its value, and its chance level or baseline."""


def field_rows(metrics: dict) -> list[Row]:
    """Format `dimensions`, `blocks` and `regression` of metrics.json, if it has them."""
    return [
        *_or_missing("dimensions", metrics.get("dimensions"), _dimensions),
        *_or_missing("blocks", metrics.get("blocks"), _blocks),
        *_regression(metrics.get("regression", {})),
    ]


def consistency_rows(found: dict | None) -> list[Row]:
    """Format `class_consistency` of metrics.json, if it has one."""
    return _or_missing("class consistency", found, _consistency)


def _or_missing(name: str, found: dict | None, rows) -> list[Row]:
    if found is None:
        return []
    return [(name, "not measured", found["missing"])] if "missing" in found else rows(found)


def _dimensions(found: dict) -> list[Row]:
    permuted = found["permuted"]
    of = f"{found['images']} images, factors {', '.join(found['factors'])}"
    return [
        (
            f"dimensions: DCI ({found['dimensions']} dimensions)",
            _dci(found["dci"]),
            f"permuted codes {_dci(permuted['dci'])} ({of})",
        ),
        (
            "dimensions: MIG and SAP",
            f"MIG {found['mig']:.3f}, SAP {found['sap']:.3f}",
            f"permuted codes {permuted['mig']:.3f}, {permuted['sap']:.3f}",
        ),
    ]


def _dci(found: dict) -> str:
    names = ("disentanglement", "completeness", "informativeness")
    return ", ".join(f"{name[0].upper()} {found[name]:.3f}" for name in names)


def _blocks(found: dict) -> list[Row]:
    figure = f"InfoM {found['infom']:.3f}, InfoE {found['infoe']:.3f}, InfoC {found['infoc']:.3f}"
    about = [
        f"{name} {of['content_code']:.3f} and {of['class_code']:.3f}"
        for name, of in found["information"].items()
    ]
    why = f"information of content code and class code about {', '.join(about)}"
    return [("two codes", figure, f"{why} ({found['images']} images)")]


def _regression(found: dict) -> list[Row]:
    rows = []
    for direction, factors in found.items():
        for name, result in factors.items():
            label = f"regression: {direction.replace('_', ' ')} {name}"
            if result is None:
                rows.append((label, "not measured", "too few values"))
                continue
            circle = f"circle of {result['period']:g}, " if result["period"] else ""
            images = f"{result['trained_on']} images to train on, {result['scored_on']} scored"
            figures = [_fit(result, "", "linear"), _fit(result, "mlp_", "MLP")]
            chance = f"error {result['chance_error']:.3g} of a constant ({circle}{images}"
            rows.append((label, ", ".join(figures), f"{chance}, {result['split']})"))
    return rows


def _fit(result: dict, key: str, name: str) -> str:
    low, high = result[f"{key}error_interval"]
    error = f"error {result[f'{key}error']:.3g} [{low:.3g}, {high:.3g}]"
    return f"R2 {result[f'{key}r2']:.3f}, {error} ({name})"


def _consistency(found: dict) -> list[Row]:
    low, high = found["interval"]
    figure = f"{found['swaps']:.3f} [{low:.3f}, {high:.3f}] of {found['scored_on']} swaps"
    real = found["real"]
    others = (
        f"real held-out images {real['accuracy']:.3f} (ceiling), reconstructions "
        f"{found['reconstructions']:.3f}, chance {found['chance']:.3f}, "
        f"class of the content image {found['content_class']:.3f}"
    )
    how = f"{real['trained_on']} images of {found['classes']} classes to train on, {real['split']}"
    return [("class consistency of swaps", figure, f"{others} ({how})")]
