import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.transform import resize

from isthmus.data.image_files import read_class_map, read_depth, read_normals
from isthmus.errors import DataError, RunError
from isthmus.evaluation.dense import learnt as learnt_module
from isthmus.evaluation.dense.learnt import learnt
from isthmus.evaluation.dense.pictures import palette
from isthmus.evaluation.dense.predict import PredictedImages, _encoded, predict_images, predicted_maps
from isthmus.evaluation.load import load_method
from isthmus.methods.base import Method
from isthmus.tasks.build_dense import dense_task
from isthmus.training.dense.problem import DenseProblem
from isthmus.training.run import Run

from .conftest import Runs
from .test_pictures import decoded

SIZE = (32, 48)


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    """A picture of another size and other proportions than the network's."""
    coarse = np.random.default_rng(0).random((7, 9, 3))
    return (255 * resize(coarse, (75, 90), order=1)).astype(np.uint8)


@pytest.fixture(scope="module")
def method(runs: Runs) -> Method:
    return load_method(runs.multi)


@pytest.fixture(scope="module")
def folder(photo: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures with a broken one among them."""
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "kitchen").mkdir()
    Image.fromarray(photo).save(folder / "a.png")
    Image.fromarray(photo[:, ::-1]).convert("L").save(folder / "kitchen" / "b.v2.jpg")
    (folder / "broken.png").write_bytes(b"no picture")
    return folder


@pytest.fixture(scope="module")
def written(runs: Runs, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, PredictedImages]:
    out = tmp_path_factory.mktemp("out") / "new"
    return out, predict_images(runs.multi, [folder, Path("nowhere.png")], out)


@torch.no_grad()
def activations(method: Method, image: np.ndarray) -> dict[str, np.ndarray]:
    """What the network says of an image at its own size, ``(H, W, C)`` by task."""
    small = Image.fromarray(image).resize(SIZE[::-1], Image.Resampling.BILINEAR)
    tensor = torch.from_numpy(np.array(small)).permute(2, 0, 1)[None].float() / 255
    raw = method.predict({"image": tensor})
    return {name: task.activate(raw[name])[0].permute(1, 2, 0).numpy() for name, task in method.tasks.items()}


class TestMaps:
    def test_picture_of_the_network_s_size_is_predicted_as_it_is(self, runs: Runs, method: Method) -> None:
        store = DenseProblem(runs.multi.recipe).source
        image = np.array(store.images[3])
        found, expected = predicted_maps(method, method.tasks, image, SIZE), activations(method, image)
        np.testing.assert_array_equal(found["segmentation"], expected["segmentation"].argmax(axis=-1))
        np.testing.assert_array_equal(found["depth"], expected["depth"][..., 0])
        np.testing.assert_allclose(found["normals"], expected["normals"], atol=1e-6)

    def test_predictions_come_back_to_the_size_of_the_picture(self, method: Method, photo: np.ndarray) -> None:
        found, small = predicted_maps(method, method.tasks, photo, SIZE), activations(method, photo)

        def enlarged(values: np.ndarray) -> np.ndarray:
            return resize(values, photo.shape[:2], order=1, mode="edge", anti_aliasing=False)

        np.testing.assert_allclose(found["depth"], enlarged(small["depth"][..., 0]), atol=1e-4)
        np.testing.assert_allclose(found["edges"], enlarged(small["edges"][..., 0]), atol=1e-4)
        probabilities = enlarged(small["segmentation"])
        two = np.sort(probabilities, axis=-1)[..., -2:]
        sure = two[..., 1] - two[..., 0] > 1e-6
        assert sure.mean() > 0.95
        np.testing.assert_array_equal(found["segmentation"][sure], probabilities.argmax(axis=-1)[sure])
        normals = enlarged(small["normals"])
        normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
        np.testing.assert_allclose(found["normals"], normals, atol=1e-3)
        np.testing.assert_allclose(np.linalg.norm(found["normals"], axis=-1), 1, atol=1e-5)


class TestFiles:
    def test_files_of_every_picture(self, written: tuple[Path, PredictedImages], folder: Path) -> None:
        out, result = written
        assert [image.file for image in result.images] == [folder / "a.png", folder / "kitchen" / "b.v2.jpg"]
        pictures = ["segmentation.png", "depth.png", "depth.npy", "normals.png", "normals.npy", "edges.png"]
        kinds = [*pictures, "json", "preview.png"]
        assert [file.name for file in result.images[0].files] == [f"a.{kind}" for kind in kinds]
        assert [file.relative_to(out).as_posix() for file in result.images[1].files] == [
            f"kitchen/b.v2.{kind}" for kind in kinds
        ]
        everything = {file for file in out.rglob("*") if file.is_file()}
        assert everything == {*result.images[0].files, *result.images[1].files, *result.shared}

    def test_broken_pictures_are_listed_and_do_not_stop_the_rest(
        self, written: tuple[Path, PredictedImages], folder: Path
    ) -> None:
        broken = {each.file: each.reason for each in written[1].broken}
        assert set(broken) == {folder / "broken.png", Path("nowhere.png")}
        assert "broken.png: expected a whole image" in broken[folder / "broken.png"]
        assert "found nothing there" in broken[Path("nowhere.png")]

    def test_files_hold_the_maps(
        self, written: tuple[Path, PredictedImages], method: Method, photo: np.ndarray
    ) -> None:
        out, maps = written[0], predicted_maps(method, method.tasks, photo, SIZE)
        np.testing.assert_array_equal(read_class_map(out / "a.segmentation.png"), maps["segmentation"])
        np.testing.assert_array_equal(np.load(out / "a.depth.npy"), maps["depth"])
        np.testing.assert_allclose(read_depth(out / "a.depth.png"), maps["depth"], atol=0.000501)
        np.testing.assert_array_equal(np.load(out / "a.normals.npy"), maps["normals"])
        stored = decoded((out / "a.normals.png").read_bytes()) * (2 / 65535) - 1
        np.testing.assert_allclose(stored, maps["normals"], atol=1.6e-5)
        np.testing.assert_allclose(read_normals(out / "a.normals.png"), maps["normals"], atol=0.01)
        np.testing.assert_allclose(np.asarray(Image.open(out / "a.edges.png")) / 65535, maps["edges"], atol=1e-5)

    def test_segmentation_carries_its_palette(self, written: tuple[Path, PredictedImages], method: Method) -> None:
        picture = Image.open(written[0] / "a.segmentation.png")
        assert picture.mode == "P"
        colours = palette(method.tasks["segmentation"].classes)  # type: ignore[attr-defined]
        np.testing.assert_array_equal(np.asarray(picture.convert("RGB")), colours[np.asarray(picture)])

    def test_classes_and_legend(self, written: tuple[Path, PredictedImages], method: Method) -> None:
        classes = method.tasks["segmentation"].classes  # type: ignore[attr-defined]
        rows = list(csv.DictReader((written[0] / "classes.csv").open()))
        assert [row["class"] for row in rows] == list(classes)
        assert [[int(row[c]) for c in ("red", "green", "blue")] for row in rows] == palette(classes).tolist()
        legend = np.asarray(Image.open(written[0] / "segmentation_legend.png")).reshape(-1, 3)
        assert {tuple(c) for c in palette(classes).tolist()} <= {tuple(c) for c in legend.tolist()}

    def test_preview_shows_image_and_tasks(self, written: tuple[Path, PredictedImages], photo: np.ndarray) -> None:
        preview = np.asarray(Image.open(written[0] / "a.preview.png"))
        big = np.kron(photo, np.ones((3, 3, 1), dtype=np.uint8))
        assert preview.shape[0] > 2 * big.shape[0] and preview.shape[1] > 3 * big.shape[1]
        assert any(
            (preview[top : top + len(big), left : left + big.shape[1]] == big).all()
            for top in range(15, 60)
            for left in range(10, 30)
        )

    def test_json_says_what_the_numbers_are(self, written: tuple[Path, PredictedImages]) -> None:
        said = json.loads((written[0] / "a.json").read_text())
        assert (said["height"], said["width"], said["predicted_at"]) == (75, 90, [32, 48])
        assert said["checkpoint"] == "source-val"
        assert said["tasks"]["depth"]["metres_per_step"] == 0.001 and "65.535 m" in said["tasks"]["depth"]["png"]
        assert list(said["tasks"]) == ["segmentation", "depth", "normals", "edges"]

    def test_depths_beyond_sixteen_bits_are_clipped_and_counted(self) -> None:
        content, said = _encoded(dense_task("depth"), np.array([[1e-9, 0.5, 70.0]], dtype=np.float32))
        assert decoded(content).tolist() == [[1, 500, 65535]]
        assert said["clipped_pixels"] == 2

    @pytest.mark.parametrize("largest", [0.49, 3e-5, 900.0, 0.0])
    def test_inverse_depth_comes_back_with_its_scale(self, largest: float) -> None:
        values = np.linspace(0, largest, 500, dtype=np.float32).reshape(20, 25)
        content, said = _encoded(dense_task("inverse_depth"), values)
        np.testing.assert_allclose(decoded(content) * said["scale"], values, atol=largest / 65535)


def test_photograph_is_turned_as_its_camera_says(runs: Runs, photo: np.ndarray, tmp_path: Path) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6  # to be turned by 90 degrees
    Image.fromarray(photo).save(tmp_path / "upright.png")
    Image.fromarray(np.rot90(photo)).save(tmp_path / "turned.png", exif=turned)
    files = [tmp_path / "upright.png", tmp_path / "turned.png"]
    assert len(predict_images(runs.multi, files, tmp_path / "out").images) == 2
    upright, other = (np.load(tmp_path / "out" / f"{name}.depth.npy") for name in ("upright", "turned"))
    np.testing.assert_array_equal(upright, other)


class TestNames:
    def test_two_formats_of_a_picture_keep_their_suffixes(self, runs: Runs, photo: np.ndarray, tmp_path: Path) -> None:
        (tmp_path / "in").mkdir()
        for name in ("a.png", "a.jpg", "b.png"):
            Image.fromarray(photo).save(tmp_path / "in" / name)
        predict_images(runs.multi, [tmp_path / "in"], tmp_path / "out")
        found = {file.name for file in (tmp_path / "out").glob("*.json")}
        assert found == {"a.png.json", "a.jpg.json", "b.json"}

    def test_pictures_that_would_be_called_the_same_are_refused(
        self, runs: Runs, photo: np.ndarray, tmp_path: Path
    ) -> None:
        for name in ("x", "y"):
            (tmp_path / name).mkdir()
            Image.fromarray(photo).save(tmp_path / name / "a.png")
        with pytest.raises(DataError, match=r"y/a\.png: expected a name of its own .* found a\.png for .*x/a\.png"):
            predict_images(runs.multi, [tmp_path / "x" / "a.png", tmp_path / "y"], tmp_path / "out")
        assert not (tmp_path / "out").exists()

    def test_output_inside_of_the_pictures_is_refused(self, runs: Runs, folder: Path) -> None:
        for out in (folder, folder / "new"):
            with pytest.raises(DataError, match="expected a folder outside of"):
                predict_images(runs.multi, [folder], out)


def test_what_exists_is_kept_unless_asked(runs: Runs, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "kitchen").mkdir()
    mine = tmp_path / "kitchen" / "b.v2.depth.png"
    mine.write_text("mine")
    with pytest.raises(DataError, match=r"b\.v2\.depth\.png: expected a new file, found one that exists"):
        predict_images(runs.multi, [folder], tmp_path)
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == [mine]
    predict_images(runs.multi, [folder], tmp_path, overwrite=True)
    assert mine.read_bytes()[1:4] == b"PNG"
    with pytest.raises(DataError, match="expected a folder to write to, found a file"):
        predict_images(runs.multi, [folder], mine)


def test_every_rule_has_its_own_weights(runs: Runs, photo: np.ndarray, tmp_path: Path) -> None:
    Image.fromarray(photo).save(tmp_path / "a.png")
    for rule in ("last", "source-val"):
        predict_images(runs.multi, [tmp_path / "a.png"], tmp_path / rule, rule=rule)
        method = load_method(runs.multi, rule)
        expected = predicted_maps(method, method.tasks, photo, SIZE)["depth"]
        np.testing.assert_array_equal(np.load(tmp_path / rule / "a.depth.npy"), expected)


def test_network_without_numbers_is_an_error_and_writes_nothing(runs: Runs, folder: Path, tmp_path: Path) -> None:
    class Spoilt(type(load_method(runs.multi))):  # type: ignore[misc]
        def predict(self, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            return {name: values * torch.nan for name, values in super().predict(inputs).items()}

    method = load_method(runs.multi)
    method.__class__ = Spoilt
    with pytest.raises(RunError, match=r"a\.png: depth: expected finite predictions, found 6750 numbers"):
        predict_images(runs.multi, [folder], tmp_path / "out", method=method)
    assert not (tmp_path / "out").exists()


def test_run_that_notes_its_outputs_predicts_without_its_data(
    runs: Runs, photo: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks, size = learnt(runs.multi)
    shutil.copytree(runs.multi.path, tmp_path / "run")
    own = Run.open(tmp_path / "run")
    own.update(outputs={"tasks": {name: list(task.classes) for name, task in tasks.items()}, "size": list(size)})

    def gone(*_: object) -> None:
        raise AssertionError("the data is not there")

    monkeypatch.setattr(learnt_module, "DenseProblem", gone)
    assert learnt(own)[1] == SIZE
    Image.fromarray(photo).save(tmp_path / "a.png")
    predict_images(own, [tmp_path / "a.png"], tmp_path / "out")
    method = load_method(own)
    expected = predicted_maps(method, method.tasks, photo, SIZE)["segmentation"]
    np.testing.assert_array_equal(read_class_map(tmp_path / "out" / "a.segmentation.png"), expected)
