"""The simulated microscope: atoms → movies with known truth, written as EPU or SerialEM would write them."""

from frazil.simulator.movie import SimulatedMovie, session_camera, simulate_movie, simulate_scene
from frazil.simulator.parameters import BadMovie, Delivery, SimulationParameters
from frazil.simulator.session import DEFECTS_NAME, GAIN_NAME, GAIN_TIFF_NAME, DeliveredMovie, write_session
from frazil.simulator.truth import simulated_optics

__all__ = [
    "DEFECTS_NAME",
    "GAIN_NAME",
    "GAIN_TIFF_NAME",
    "BadMovie",
    "DeliveredMovie",
    "Delivery",
    "SimulatedMovie",
    "SimulationParameters",
    "session_camera",
    "simulate_movie",
    "simulate_scene",
    "simulated_optics",
    "write_session",
]
