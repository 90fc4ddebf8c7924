from ncbook.plots.geometry import *
