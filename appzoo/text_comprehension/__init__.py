"""Answers to questions, cut from a text: single questions and conversations."""
