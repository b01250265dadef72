"""`python -m limbeck` is the command `limbeck`."""

from limbeck.pipelines.cli.main import main

main()
