"""Images from rows to answers: read, judged, trained by each method, made small, shown."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fastapi.testclient import TestClient
from PIL import Image

import modelyard
from modelyard import inputs
from modelyard.cli.main import main
from modelyard.core.errors import ExtraMissing, SettingInvalid
from modelyard.core.events import silent
from modelyard.core.flow import run
from modelyard.core.project import Serve
from modelyard.core.project_file import read_project
from modelyard.core.store import Store
from modelyard.data.source import files_digest
from modelyard.doors import open_release, release_info
from modelyard.runtime.encoded import Deferred, one_after_the_other
from modelyard.service.app import create_app
from modelyard.stages import find
from modelyard.stages.report.page import render

Row = dict[str, Any]
IMAGE = inputs.find("image")
STATE = {"size": 32, "fit": "pad", "augment": "small"}


def drawn(number: int, is_left: bool, size: tuple[int, int] = (20, 24)) -> Any:
    """Noise with a bright left or right half."""
    grey = np.random.default_rng(number).integers(0, 120, size, dtype=np.uint8)
    half = size[1] // 2
    grey[:, :half] += 120 if is_left else 0
    grey[:, half:] += 0 if is_left else 120
    return grey


def png(pixels: Any, form: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form)
    return file.getvalue()


def by_class(folder: Path, count: int = 120) -> Path:
    """A folder of images by class, in forms and sizes of all sorts."""
    for number in range(count):
        side, form = ("left", "right")[number % 2], ("PNG", "JPEG", "BMP")[number % 3]
        path = folder / side / f"{number:03}.{form.lower()}"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = drawn(number, side == "left", (20 + number % 7, 24))
        path.write_bytes(png(pixels if number % 4 else np.stack([pixels] * 3, 2), form))
    return folder


def project(folder: Path, backbone: Path, rows: str, column: str = "image", more: str = "") -> Path:
    (folder / "modelyard.toml").write_text(
        f'name = "sides"\n[data]\nrows = "{rows}"\nsplit = {{ test = 0.2, validation = 0.2 }}\n'
        f'[inputs]\n{column} = "image"\n[target]\ncolumn = "label"\n'
        f'[backbone]\nimage = "{backbone}"\n'
        f"[train]\nepochs = 6\nbatch_rows = 16\nlearning_rate = 0.003\n"
        f'precision = "fp32"\n{more}\n',
        encoding="utf-8",
    )
    return folder


def newest(folder: Path, stage: str) -> Path:
    [found] = (folder / ".modelyard" / "objects").glob(f"{stage}-*")
    return found


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tiny_image_backbone: Path) -> Path:
    """A project on a folder of images by class, run."""
    folder = tmp_path_factory.mktemp("sides")
    by_class(folder / "rows")
    (folder / "rows" / "left" / "torn.png").write_bytes(png(drawn(1, True))[:-40])
    (folder / "rows" / "left" / "again.png").write_bytes(
        (folder / "rows" / "left" / "000.png").read_bytes()
    )
    modelyard.run(project(folder, tiny_image_backbone, "rows"))
    return folder


def test_a_folder_of_images_becomes_a_release(made: Path) -> None:
    report = json.loads((newest(made, "audit") / "report.json").read_text(encoding="utf-8"))
    [accuracy] = [each for each in report["measures"] if each["name"] == "accuracy"]
    assert accuracy["value"] >= 0.9
    assert report["baselines"][1]["name"] == "pixels with logistic regression"
    assert report["data"]["languages"] is None and report["language"] is None
    release = newest(made, "release")
    card = (release / "README.md").read_text(encoding="utf-8")
    assert "pip install 'modelyard[image]'" in card and "from transformers" not in card
    shared = json.loads((release / "report.json").read_text(encoding="utf-8"))
    assert not any(each["pictures"] for each in shared["mistakes"]["listed"])


def test_what_is_left_out_is_told_with_its_place(made: Path) -> None:
    dataset = newest(made, "prepare")
    lines = (dataset / "refused.jsonl").read_text(encoding="utf-8").splitlines()
    told = {line["place"]: line for line in map(json.loads, lines)}
    assert set(told) == {"left/torn.png", "left/again.png"} or "left/000.png" in told
    assert "cannot be decoded" in told["left/torn.png"]["reason"]
    report = json.loads((dataset / "data-report.json").read_text(encoding="utf-8"))
    assert report["refused"] == {"wrong input": 1, "duplicate": 1}
    assert report["near_duplicates"]["method"] is None and report["characters"] == {}


def test_a_dataset_is_whole_without_the_files(made: Path) -> None:
    table = pq.read_table(newest(made, "prepare") / "train.parquet")
    assert table.schema.field("image").type == pa.binary()
    assert all(Image.open(io.BytesIO(each)).size[0] == 24 for each in table["image"].to_pylist())


def test_int8_is_smaller_and_says_what_it_costs(made: Path) -> None:
    told = json.loads((newest(made, "compress") / "compress.json").read_text(encoding="utf-8"))
    whole, small = told["rungs"]
    assert small["bytes"] < whole["bytes"] / 2
    assert whole["agreement"] == 1 and small["agreement"] >= 0.9
    assert whole["largest_difference"] < 1e-4 < small["largest_difference"] + 1e-4


def test_mistakes_come_with_their_pictures(made: Path) -> None:
    found = json.loads((newest(made, "audit") / "report.json").read_text(encoding="utf-8"))
    url = IMAGE.picture(png(drawn(1, True, (300, 400))))
    assert url and url.startswith("data:image/png;base64,") and len(url) < 20_000
    listed = [{"row": 1, "truth": "left", "label": "right", "score": 0.9, "inputs": {},
               "pictures": {"image": url}}]  # fmt: skip
    found["mistakes"] = {"wrong": 1, "rows": 24, "listed": listed}
    assert f'<img src="{url}" alt="image">' in render(found)


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_rows_name_files_or_hold_them(
    form: str, made: Path, tmp_path: Path, tiny_image_backbone: Path
) -> None:
    folder = tmp_path / "project"
    by_class(folder / "rows" / "pictures", 60)
    names = sorted((folder / "rows" / "pictures").rglob("*.*"))
    rows = [
        {"photo": path.relative_to(folder / "rows").as_posix(), "label": path.parent.name}
        for path in names
    ]
    if form == "parquet":
        rows = [{**row, "photo": {"bytes": path.read_bytes(), "path": None}}
                for row, path in zip(rows, names, strict=True)]  # fmt: skip
        pq.write_table(pa.Table.from_pylist(rows), folder / "rows" / "all.parquet")
    elif form == "jsonl":
        for row, path in zip(rows[::2], names[::2], strict=True):
            row["photo"] = base64.b64encode(path.read_bytes()).decode()
        (folder / "rows" / "all.jsonl").write_text("\n".join(map(json.dumps, rows)))
    else:
        lines = ["photo,label", *(f"{row['photo']},{row['label']}" for row in rows)]
        (folder / "rows" / "all.csv").write_text("\n".join(lines))
    file = project(folder, tiny_image_backbone, f"rows/all.{form}", "photo") / "modelyard.toml"
    found = read_project(file)
    before = files_digest(found, ["photo"])
    names[1].write_bytes(png(drawn(999, False)))
    assert (files_digest(found, ["photo"]) == before) == (form == "parquet")
    made_now = run(found, [find("prepare")], Store(tmp_path / "store"), silent)
    tables = [pq.read_table(made_now["prepare"].part(p)) for p in ("train", "validation", "test")]
    kept = {each for table in tables for each in table["photo"].to_pylist()}
    if form != "parquet":
        assert kept == {path.read_bytes() for path in names}
    assert len(kept) == 60


@pytest.mark.parametrize("method", ["head", "lora"])
def test_each_method_trains_convolutions(
    method: str, made: Path, tmp_path: Path, tiny_image_backbone: Path
) -> None:
    by_class(tmp_path / "rows", 40)
    folder = project(tmp_path, tiny_image_backbone, "rows", more=f'method = "{method}"')
    release = modelyard.run(folder, ["train.epochs=2"])
    assert modelyard.load(release.folder).predict([{"image": drawn(1, True)}])


def test_python_files_and_http_give_one_answer(made: Path, tmp_path: Path) -> None:
    release = newest(made, "release")
    pixels = drawn(500, True)
    content = png(pixels)
    (tmp_path / "a.png").write_bytes(content)
    text = base64.b64encode(content).decode()
    model = modelyard.load(release)
    ways = [
        content,
        text,
        pixels,
        pixels.tolist(),
        tmp_path / "a.png",
        f"data:image/png;base64,{text}",
    ]
    answers = model.predict([{"image": way} for way in ways])
    assert answers[0]["label"] == "left" and all(each == answers[0] for each in answers)
    (tmp_path / "rows.csv").write_text(f"image\na.png\n{text}\nb.png\n")
    assert (
        main(
            [
                "predict",
                str(release),
                str(tmp_path / "rows.csv"),
                "--out",
                str(tmp_path / "o.jsonl"),
            ]
        )
        == 0
    )
    first, second, third = map(json.loads, (tmp_path / "o.jsonl").read_text().splitlines())
    assert first["image"] == "a.png" and first["score"] == second["score"] == answers[0]["score"]
    assert "nor, in a file of rows, the path of one" in third["error"]
    runtime = open_release(release)
    with TestClient(create_app(runtime, release_info(release, runtime), Serve())) as client:
        rows = {"rows": [{"image": text}, {"image": pixels.tolist()}]}
        reply = client.post("/v1/models/sides/predict", json=rows).json()
        assert reply["predictions"] == [answers[0]] * 2 and reply["usage"] == {
            "rows": 2,
            "tokens": 18,
        }
        tensor = {"name": "image", "datatype": "BYTES", "shape": [1]}
        asked = {"inputs": [{**tensor, "data": [text]}]}
        of_json = client.post("/v2/models/sides/infer", json=asked).json()
        body = len(content).to_bytes(4, "little") + content
        head = json.dumps({"inputs": [{**tensor, "parameters": {"binary_data_size": len(body)}}]})
        of_bytes = client.post(
            "/v2/models/sides/infer",
            content=head.encode() + body,
            headers={"Inference-Header-Content-Length": str(len(head))},
        ).json()
        assert of_json["outputs"] == of_bytes["outputs"]
        refused = client.post(
            "/v1/models/sides/predict", json={"rows": [{"image": str(tmp_path / "a.png")}]}
        )
        assert refused.status_code == 422 and "neither the base64" in refused.json()["detail"]
        torn = {"rows": [{"image": text}, {"image": base64.b64encode(content[:-30]).decode()}]}
        refused = client.post("/v1/models/sides/predict", json=torn)
        assert refused.status_code == 422 and "Row 2, column 'image'" in refused.json()["detail"]


def test_a_long_text_is_no_limit_for_an_image(made: Path) -> None:
    release = newest(made, "release")
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    text = base64.b64encode(png(noise)).decode()
    assert len(text) > Serve().max_characters
    runtime = open_release(release)
    with TestClient(create_app(runtime, release_info(release, runtime), Serve())) as client:
        reply = client.post("/v1/models/sides/predict", json={"rows": [{"image": text}]})
        assert reply.status_code == 200
        schema = client.get("/openapi.json").json()
    assert "base64" in json.dumps(schema)


def test_few_images_are_decoded_at_once_and_many_when_they_are_wanted() -> None:
    encode = IMAGE.encoder(STATE, Path())
    values = [drawn(n, True) for n in range(40)]
    few, many = encode(values[:3]), encode(values)
    assert not isinstance(few.arrays["pixels"], Deferred)
    assert isinstance(many.arrays["pixels"], Deferred)
    assert few.lengths.tolist() == [9] * 3
    want = encode([values[7]]).whole()["pixels"]
    assert (many.collate([7])["pixels"] == want).all()
    both = one_after_the_other([few, many.take(np.array([7]))]).whole()["pixels"]
    assert both.shape == (4, 3, 32, 32) and (both[3] == want[0]).all()


def test_a_new_project_on_images_knows_what_they_are(tmp_path: Path) -> None:
    by_class(tmp_path / "rows", 12)
    assert main(["new", str(tmp_path / "new"), "--rows", str(tmp_path / "rows")]) == 0
    found = read_project(tmp_path / "new" / "modelyard.toml")
    assert found.inputs["image"].kind == "image" and found.target.column == "label"
    assert found.backbone.image == "efficientnet-lite0"


def test_a_hub_datasets_images_are_read(tmp_path: Path) -> None:
    content = png(drawn(3, True))
    (tmp_path / "a.png").write_bytes(content)
    for value in ({"bytes": content, "path": "b.png"}, {"bytes": None, "path": "a.png"}):
        assert IMAGE.read(value, tmp_path) == content
    assert IMAGE.check(IMAGE.read({"bytes": None, "path": None}, tmp_path))
    assert IMAGE.check({"path": str(tmp_path / "a.png")})  # a service opens no file it is told of


def test_options_are_checked() -> None:
    with pytest.raises(SettingInvalid, match="did you mean 'size'"):
        IMAGE.options({"sice": 10})
    with pytest.raises(SettingInvalid, match="The option 'fit' of an image"):
        IMAGE.options({"fit": "stretch"})


def test_without_pillow_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "PIL", None)
    with pytest.raises(ExtraMissing, match=r"modelyard\[image\]"):
        IMAGE.encoder(STATE, Path())
