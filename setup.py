"""Put the folders clients, strategies and simulations into the package fedjoint when it is built.

Installed under their own names they would hide a user's folders, or be hidden by them.
"""

from setuptools import find_packages, setup

BESIDE = ("clients", "strategies", "simulations")

packages = find_packages(include=["fedjoint", "fedjoint.*"])
for name in BESIDE:
    packages += [f"fedjoint.{part}" for part in find_packages(include=[name, f"{name}.*"])]

setup(packages=packages, package_dir={f"fedjoint.{name}": name for name in BESIDE})
