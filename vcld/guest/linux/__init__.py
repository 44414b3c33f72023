"""Linux on the computer, by SSH: one script of plain ``sh`` for each thing that is asked."""
