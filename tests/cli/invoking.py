"""Commands run inside this process."""

from click.testing import CliRunner

from probem.cli.commands import group


def invoke(*arguments):
    return CliRunner().invoke(group, [str(argument) for argument in arguments], prog_name="probem")


def refused(*arguments):
    """The one sentence with which a command is refused."""
    result = invoke(*arguments)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    (sentence,) = result.stderr.removeprefix("Error: ").splitlines()
    return sentence
