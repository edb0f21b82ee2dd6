"""Assessment -> overview: an X-ray-like frontal image coloured green to red by local severity, with the numbers.

After the worklist figure of Goncharov 2021. Nothing that names the patient or the date is drawn.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont
from pydicom.dataset import Dataset
from scipy import ndimage

from triage_node import codes
from triage_node.conformance import SECONDARY_CAPTURE_IMAGE_STORAGE
from triage_node.frontal import HEIGHT, LEFT, SIZE, TOP, WIDTH
from triage_node.results import envelope
from triage_node.results.projection import Frontal, frontal
from triage_node.study import NOT_FOR_DIAGNOSTIC_USE, CtGrade

if TYPE_CHECKING:
    from triage_node.identity import ResultIdentity
    from triage_node.results.source import Source
    from triage_node.study import Assessment, Findings, LungMeasurement, Volume

Pixels = npt.NDArray[np.uint8]  # [rows, columns, 3]
Color = tuple[int, int, int]

BACKGROUND: Color = (12, 14, 18)
PANEL: Color = (22, 26, 33)
LINE: Color = (52, 60, 72)
TEXT: Color = (222, 227, 234)
QUIET: Color = (140, 150, 164)
CAUTION: Color = (255, 190, 70)

# Local severity, 0..1, to colour: green over yellow to red, all about as bright, so that only the hue speaks.
SCALE: tuple[tuple[float, Color], ...] = (
    (0.00, (46, 176, 92)),
    (0.25, (160, 198, 58)),
    (0.50, (242, 196, 48)),
    (0.75, (240, 122, 44)),
    (1.00, (226, 40, 44)),
)

GRADE_COLORS: dict[CtGrade, Color] = {
    CtGrade.CT_0: SCALE[0][1],
    CtGrade.CT_1: SCALE[1][1],
    CtGrade.CT_2: SCALE[2][1],
    CtGrade.CT_3: SCALE[3][1],
    CtGrade.CT_4: SCALE[4][1],
}


@dataclass(frozen=True, slots=True)
class _Pen:
    """Writes on one picture."""

    draw: ImageDraw.ImageDraw

    def text(self, x: float, y: float, words: str, size: int, color: Color = TEXT, anchor: str = "la") -> None:
        self.draw.text((x, y), _plain(words), font=_font(size), fill=color, anchor=anchor)

    def width(self, words: str, size: int) -> float:
        return float(self.draw.textlength(_plain(words), font=_font(size)))

    def lines(self, words: str, size: int, width: float) -> list[str]:
        """`words` broken so that each line fits."""
        broken, line = [], ""
        for word in words.split():
            longer = f"{line} {word}".strip()
            if line and self.width(longer, size) > width:
                broken.append(line)
                line = word
            else:
                line = longer
        return [*broken, line] if line else broken


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=size)


def _plain(words: str) -> str:
    # Pillow's own font has no other letters
    return words.encode("ascii", "replace").decode()


def dataset(
    volume: Volume, findings: Findings, assessment: Assessment, source: Source, identity: ResultIdentity
) -> Dataset:
    """The overview as a Secondary Capture Image (PS3.3 A.8.1), RGB, 8 bit."""
    pixels = render(volume, findings, assessment)
    image = Dataset()
    image.SOPClassUID = SECONDARY_CAPTURE_IMAGE_STORAGE
    image.ImageType = ["DERIVED", "SECONDARY", "OTHER"]
    image.ConversionType = "WSD"
    image.BodyPartExamined = "CHEST"
    image.PatientOrientation = ["L", "F"]  # columns run to the patient's left, rows to the feet
    image.DerivationDescription = f"{NOT_FOR_DIAGNOSTIC_USE}. Frontal projection of CT, coloured by severity"
    image.ImageComments = f"{NOT_FOR_DIAGNOSTIC_USE}. {assessment.ct_grade}, not measurable"
    # PS3.3 table C.7-9 asks whether patient and date can be told from what is burned in: they cannot
    image.BurnedInAnnotation = "NO"
    image.RecognizableVisualFeatures = "NO"
    image.LossyImageCompression = "00"
    image.SamplesPerPixel = 3
    image.PhotometricInterpretation = "RGB"
    image.PlanarConfiguration = 0
    image.Rows, image.Columns = pixels.shape[:2]
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 8, 8, 7, 0
    image.PixelData = pixels.tobytes()
    image["PixelData"].VR = "OB"
    envelope.refer(image, source.instances)
    envelope.stamp(image, "overview", source, identity, assessment.model)
    return image


def png(picture: Dataset | Pixels) -> bytes:
    """The overview, as a data set or as pixels, as a PNG file."""
    if isinstance(picture, Dataset):
        shape = (picture.Rows, picture.Columns, 3)
        picture = np.frombuffer(picture.PixelData, np.uint8, count=math.prod(shape)).reshape(shape)
    buffer = BytesIO()
    Image.fromarray(picture).save(buffer, format="PNG")
    return buffer.getvalue()


def render(volume: Volume, findings: Findings, assessment: Assessment) -> Pixels:
    """The overview as uint8 [row, column, RGB]."""
    picture = Image.new("RGB", (SIZE, SIZE), BACKGROUND)
    pen = _Pen(ImageDraw.Draw(picture))
    _banner(pen, assessment)
    _frontal(picture, pen, frontal(volume, findings, width=WIDTH, height=HEIGHT))
    _color_bar(picture, pen)
    _headline(pen, assessment)
    _table(pen, assessment)
    _remarks(pen, assessment)
    return np.asarray(picture)


def _banner(pen: _Pen, assessment: Assessment) -> None:
    pen.draw.rectangle((0, 0, SIZE, 56), fill=CAUTION)
    pen.text(20, 28, NOT_FOR_DIAGNOSTIC_USE, 30, BACKGROUND, "lm")
    model = assessment.model
    words = f"{model.name} {model.version}, generation {assessment.generation}"
    pen.text(SIZE - 20, 28, words, 20, BACKGROUND, "rm")


# ---------------------------------------------------------------------------------------------- image


def _frontal(picture: Image.Image, pen: _Pen, view: Frontal) -> None:
    pen.draw.rectangle((LEFT, TOP, LEFT + WIDTH, TOP + HEIGHT), fill=(0, 0, 0))
    colored = Image.fromarray(_colored(view))
    left, top = LEFT + (WIDTH - colored.width) // 2, TOP + (HEIGHT - colored.height) // 2
    picture.paste(colored, (left, top))
    for x, anchor, letter in ((LEFT + 14, "la", "R"), (LEFT + WIDTH - 14, "ra", "L")):
        _outlined(pen, x, TOP + 10, letter, 34, anchor)
    length = round(50 / view.pixel_mm)
    x, y = LEFT + 18, TOP + HEIGHT - 20
    for width, color in ((7, (0, 0, 0)), (3, TEXT)):
        for line in ((x, y, x + length, y), (x, y - 6, x, y + 6), (x + length, y - 6, x + length, y + 6)):
            pen.draw.line(line, fill=color, width=width)
    _outlined(pen, x + length + 12, y, "5 cm", 22, "lm")


def _outlined(pen: _Pen, x: float, y: float, words: str, size: int, anchor: str) -> None:
    pen.draw.text((x, y), words, font=_font(size), fill=TEXT, anchor=anchor, stroke_width=3, stroke_fill=(0, 0, 0))


def _colored(view: Frontal) -> Pixels:
    """Grey outside of the lungs; inside, the same grey values carry the colour, the more the severer."""
    grey = _radiograph(view)[..., None]
    hue = _color(view.severity) / 255
    loud = np.sqrt(view.severity)[..., None]
    strength = 0.55 + 0.4 * loud
    # Aerated lung is dark: without light of its own a lesion there would hardly show its colour
    tinted = (1 - strength) * 1.1 * grey + strength * hue * (0.2 + 0.4 * loud + (1.1 - 0.45 * loud) * grey)
    # A soft border hides the steps of thick slices
    inside = ndimage.gaussian_filter(view.lung.astype(float), 0.6 / view.pixel_mm)[..., None]
    mixed: Pixels = np.rint(255 * np.clip(grey * (1 - inside) + tinted * inside, 0, 1)).astype(np.uint8)
    return mixed


def _radiograph(view: Frontal) -> npt.NDArray[np.float64]:
    """[row, column] 0..1: dense is bright as on a radiograph, with local contrast for vessels and ribs."""
    image = view.attenuation
    inside = image[view.lung] if view.lung.any() else image
    low, high = np.percentile(inside, 0.5), np.percentile(image, 99.8)
    low -= 0.12 * (high - low)
    whole = np.clip((image - low) / max(high - low, 1e-6), 0, 1) ** 1.25
    detail = image - ndimage.gaussian_filter(image, 7 / view.pixel_mm)
    spread = max(float(np.percentile(np.abs(detail), 98)), 1e-6)
    contrasted = np.clip(0.8 * whole + 0.16 * np.clip(detail / spread, -1.5, 1.5), 0, 1)
    beside = np.clip((image - 0.02) / 0.06, 0, 1)  # keeps the air beside the body black
    return np.asarray(contrasted * beside)


def _color(severity: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    places = [place for place, _ in SCALE]
    channels = [np.interp(severity, places, [color[channel] for _, color in SCALE]) for channel in range(3)]
    return np.stack(channels, axis=-1)


def _color_bar(picture: Image.Image, pen: _Pen) -> None:
    x, top, height = LEFT + WIDTH + 16, TOP + 26, HEIGHT - 52
    ramp = _color(np.linspace(1, 0, height))[:, None].repeat(18, axis=1)
    picture.paste(Image.fromarray(ramp.astype(np.uint8)), (x, top))
    for share in (0, 25, 50, 75, 100):
        y = top + (height - 1) * (1 - share / 100)
        pen.draw.line((x + 18, y, x + 24, y), fill=QUIET, width=2)
        pen.text(x + 28, y, f"{share} %", 18, QUIET, "lm")
    # Along the bar, bottom to top
    words = "lesion share of lung depth"
    label = Image.new("RGB", (int(pen.width(words, 18)) + 4, 26), BACKGROUND)
    _Pen(ImageDraw.Draw(label)).text(2, 13, words, 18, QUIET, "lm")
    turned = label.transpose(Image.Transpose.ROTATE_90)
    picture.paste(turned, (x + 78, top + (height - turned.height) // 2))


# ---------------------------------------------------------------------------------------------- numbers


def _percent(fraction: float) -> str:
    percent = 100 * fraction
    if percent == 0:
        return "0 %"
    if percent < 0.1:
        return "< 0.1 %"
    if 99.5 <= percent < 100:
        return "> 99 %"
    return f"{percent:.1f} %" if percent < 10 else f"{percent:.0f} %"


def _ml(volume_ml: float) -> str:
    if volume_ml == 0:
        return "0 ml"
    if volume_ml < 0.1:
        return "< 0.1 ml"
    return f"{volume_ml:.1f} ml" if volume_ml < 10 else f"{volume_ml:,.0f} ml".replace(",", " ")


def _headline(pen: _Pen, assessment: Assessment) -> None:
    left, right, y = 806, SIZE - 20, TOP
    pen.draw.rounded_rectangle((left - 14, y, right, TOP + HEIGHT), radius=10, fill=PANEL)
    severity = codes.SEVERITIES[assessment.ct_grade].meaning
    shown = "no lesion found" if assessment.ct_grade is CtGrade.CT_0 else severity.lower()
    pen.text(left, y + 18, "CT grade", 20, QUIET)
    pen.text(left, y + 42, str(assessment.ct_grade), 62, GRADE_COLORS[assessment.ct_grade])
    pen.text(left, y + 112, shown, 22 if pen.width(shown, 22) <= right - 14 - left else 19)
    pen.draw.line((left, y + 154, right - 14, y + 154), fill=LINE)
    pen.text(left, y + 168, "affected fraction,", 20, QUIET)
    pen.text(left, y + 192, "worse lung", 20, QUIET)
    pen.text(left, y + 218, _percent(assessment.affected_fraction), 48)
    pen.text(left, y + 274, f"both lungs {_percent(assessment.affected_fraction_both)}", 20)
    pen.draw.line((left, y + 314, right - 14, y + 314), fill=LINE)
    pen.text(left, y + 328, "CT-SS (LungQuant)", 20, QUIET)
    pen.text(left, y + 352, f"{int(assessment.ct_ss)} of 5", 40)
    pen.draw.line((left, y + 412, right - 14, y + 412), fill=LINE)
    pen.text(left, y + 426, "P(COVID-19)", 20, QUIET)
    if assessment.covid_probability is None:
        pen.text(left, y + 452, "not provided", 26)
        pen.text(left, y + 484, "by this method", 26)
    else:
        pen.text(left, y + 450, _percent(assessment.covid_probability), 48)
    pen.draw.line((left, y + 530, right - 14, y + 530), fill=LINE)
    pen.text(left, y + 544, "consolidation, share", 20, QUIET)
    pen.text(left, y + 568, "of the lesions", 20, QUIET)
    share = assessment.consolidation_share
    pen.text(left, y + 594, "no lesion" if share is None else _percent(share), 32)


def _table(pen: _Pen, assessment: Assessment) -> None:
    left, top, row = 20, TOP + HEIGHT + 22, 38
    columns = (330, 480, 640)  # right edges
    heads = ("right lung", "left lung", "both")
    for x, head in zip(columns, heads, strict=True):
        pen.text(x, top, head, 22, QUIET, "ra")
    pen.draw.line((left, top + 32, columns[-1], top + 32), fill=LINE, width=2)
    for index, (name, values) in enumerate(_rows(assessment)):
        y = top + 42 + index * row
        pen.text(left, y, name, 22, QUIET)
        for x, value in zip(columns, values, strict=True):
            pen.text(x, y, value, 24, TEXT if value != "not found" else CAUTION, "ra")


def _rows(assessment: Assessment) -> list[tuple[str, tuple[str, str, str]]]:
    lungs = (assessment.right, assessment.left)
    found = assessment.lungs

    def row(name: str, key: str) -> tuple[str, tuple[str, str, str]]:
        each = [_ml(getattr(lung, key)) if lung is not None else "not found" for lung in lungs]
        return name, (each[0], each[1], _ml(sum(getattr(lung, key) for lung in found)))

    def fraction(lung: LungMeasurement | None) -> str:
        return "not found" if lung is None else _percent(lung.affected_fraction)

    affected = (fraction(assessment.right), fraction(assessment.left), _percent(assessment.affected_fraction_both))
    return [
        ("lung volume", row("", "volume_ml")[1]),
        ("lesions", row("", "lesion_ml")[1]),
        ("affected", affected),
        ("ground glass", row("", "ground_glass_ml")[1]),
        ("consolidation", row("", "consolidation_ml")[1]),
    ]


def _remarks(pen: _Pen, assessment: Assessment) -> None:
    warnings = assessment.warnings
    left, top, width, bottom = 672, TOP + HEIGHT + 22, SIZE - 20 - 672, SIZE - 20
    y = float(top)
    pen.text(left, y, "warnings" if warnings else "no warnings", 22, CAUTION if warnings else QUIET)
    pen.draw.line((left, top + 32, SIZE - 20, top + 32), fill=LINE, width=2)
    y += 44
    trust = () if assessment.covid_probability is None else (assessment.model.trust,)
    sentences = tuple(words for words in (*(warnings or (assessment.model.describes,)), *trust) if words)
    for index, words in enumerate(sentences):
        lines = pen.lines(_sentence(words), 18, width)
        last = index == len(sentences) - 1
        if y + 23 * (len(lines) + (0 if last else 1)) > bottom:
            pen.text(left, y, f"{len(sentences) - index} more in the report", 18, CAUTION)
            return
        for line in lines:
            pen.text(left, y, line, 18, TEXT if warnings else QUIET)
            y += 23
        y += 8


def _sentence(words: str) -> str:
    return words[:1].upper() + words[1:]
