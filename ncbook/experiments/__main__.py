from ncbook.experiments.runner import main

main()
