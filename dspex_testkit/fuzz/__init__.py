"""The fuzz journal: seeds explored for as long as there is budget, and the smallest example of each failure kept."""
