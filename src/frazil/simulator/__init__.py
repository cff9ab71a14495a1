"""The simulated microscope: atoms → movies with known truth, written as EPU or SerialEM would write them."""

from frazil.simulator.movie import SimulatedMovie, session_camera, simulate_movie, simulate_scene
from frazil.simulator.parameters import BadMovie, Delivery, SimulationParameters

__all__ = [
    "BadMovie",
    "Delivery",
    "SimulatedMovie",
    "SimulationParameters",
    "session_camera",
    "simulate_movie",
    "simulate_scene",
]
