"""The demo: the whole product on one machine, walked through step by step as a person would type it."""
