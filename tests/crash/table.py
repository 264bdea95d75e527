"""The table of the matrix, as text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tests.crash.matrix import Report, Row

_HEAD = ("subject", "step", "points", "deaths", "not reached", "failed")


def lines(reports: Mapping[str, Report]) -> Iterator[str]:
    """One line per subject and step, a sum per subject, and a few sentences."""
    cells: list[tuple[str, ...]] = [_HEAD]
    for backend, report in reports.items():
        cells += [_cells(backend, step, row) for step, row in report.rows.items()]
        missed, failed = len(report.missed), len(report.failed) + len(report.problems)
        cells.append((backend, "all", str(report.points), str(report.died), str(missed), str(failed)))
    widths = [max(len(row[column]) for row in cells) for column in range(len(_HEAD))]
    for row in cells:
        texts = [
            f"{text:<{width}}" if n < 2 else f"{text:>{width}}"
            for n, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(texts)
    points, died = sum(r.points for r in reports.values()), sum(r.died for r in reports.values())
    for name, report in reports.items():
        for whose in dict.fromkeys(whose for whose, _ in report.notes):
            counts = (f"{count} {what}" for (of, what), count in report.notes.items() if of == whose)
            yield f"{name}, {whose}: {', '.join(counts)}."
    yield f"{died} of {2 * points} kill points covered ({points} calls, before and after each)."


def _cells(backend: str, step: str, row: Row) -> tuple[str, ...]:
    return (backend, step, str(row.points), str(row.died), str(len(row.missed)), str(len(row.failed)))
