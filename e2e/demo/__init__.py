"""The demo: the main job, told on the screen with commands that a reader can repeat."""
