"""Batches of prompts, their shared beginnings, choices and writing."""
