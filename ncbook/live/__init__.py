from ncbook.live.lab import LiveLab
