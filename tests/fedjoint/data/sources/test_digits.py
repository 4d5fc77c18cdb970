import numpy as np
import scipy.ndimage
from sklearn.datasets import load_digits

from fedjoint.data.sources import digits

DATASET = digits.load()
IMAGES, DIGIT = load_digits().images, load_digits().target


def test_inputs_are_the_images():
    np.testing.assert_allclose(DATASET.examples.x.reshape(-1, 8, 8) * 16, IMAGES)


def test_classes():
    loops = {6: 1, 8: 1, 9: 1, 0: 1}
    y = DATASET.examples.y
    assert y["digit"].tolist() == DIGIT.tolist()
    assert y["parity"].tolist() == [int(str(d) in "13579") for d in DIGIT]
    assert y["loop"].tolist() == [loops.get(d, 0) for d in DIGIT]


def test_targets_against_scipy():
    centre = np.array([scipy.ndimage.center_of_mass(image) for image in IMAGES])
    y = {name: label.numpy() for name, label in DATASET.examples.y.items()}
    mean, deviation = digits.CENTROID
    np.testing.assert_allclose(y["centroid"] * np.array(deviation) + mean, centre, atol=1e-4)
    ink = np.array([scipy.ndimage.mean(image) / 16 for image in IMAGES])
    np.testing.assert_allclose(y["ink"][:, 0] * digits.INK[1] + digits.INK[0], ink, atol=1e-5)


def test_targets_are_standardised():
    for name in ("ink", "centroid"):
        y = DATASET.examples.y[name].numpy()
        np.testing.assert_allclose(y.mean(0), 0, atol=2e-3)
        np.testing.assert_allclose(y.std(0), 1, atol=2e-3)


def test_every_example_has_every_label_in_the_task_s_shape():
    assert DATASET.known().all()
    for task in DATASET.tasks:
        assert DATASET.examples.y[task.name].dtype == task.missing(1).dtype
        assert DATASET.examples.y[task.name].shape == task.missing(1797).shape
