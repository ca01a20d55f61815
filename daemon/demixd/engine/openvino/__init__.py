"""Models converted for OpenVINO, the fastest runtime on CPUs."""
