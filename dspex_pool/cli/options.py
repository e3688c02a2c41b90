"""The options of the commands: their names, their sentences, their bounds."""

# The annotations are read at run time by typer: they must not become strings.

from typing import Annotated, TypeAlias

import typer

__all__ = [
    "Allow",
    "ApiBase",
    "ApiKeyEnv",
    "AsJson",
    "Config",
    "ExpectedField",
    "Format",
    "Input",
    "JournalPath",
    "Lm",
    "MaxTokens",
    "Module",
    "Output",
    "Overwrite",
    "Profile",
    "Program",
    "Progress",
    "Quiet",
    "Resume",
    "Retries",
    "RetryFailed",
    "SessionField",
    "Settings",
    "Signature",
    "State",
    "Temperature",
    "Timeout",
    "Tool",
    "Verbose",
    "Workers",
]

Program: TypeAlias = Annotated[
    str,
    typer.Argument(
        metavar="PROGRAM",
        help="A signature such as 'context, question -> answer', a saved program's JSON file, or module:factory.",
    ),
]
Input: TypeAlias = Annotated[
    str, typer.Argument(metavar="INPUT", help="Rows as JSONL or CSV; - for the standard input.")
]
Output: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--output", "-o", metavar="FILE", help="Answers as JSONL; - or nothing for the standard output."
    ),
]
Format: TypeAlias = Annotated[
    str | None,
    typer.Option("--format", metavar="jsonl|csv", help="Format of INPUT, where its suffix does not tell."),
]
Module: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--module",
        metavar="KIND",
        help="Kind of module around the signature: predict (default), chain_of_thought, react, program_of_thought.",
    ),
]
Signature: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--signature", metavar="TEXT", help="The signature, if PROGRAM is a file with DSPy's state alone."
    ),
]
State: TypeAlias = Annotated[
    str | None,
    typer.Option("--state", metavar="FILE", help="DSPy's JSON state that the program starts with."),
]
Tool: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--tool", metavar="NAME", help="A react module's tool, as module:function. May be repeated."
    ),
]
Allow: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--allow", metavar="PREFIX", help="Modules that factories and tools may come from. May be repeated."
    ),
]
Lm: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--lm",
        metavar="MODEL",
        help="Any model that DSPy knows, such as openai/gpt-4o-mini. Default: the embedded extractive engine, "
        "which needs no network and no key.",
    ),
]
ApiKeyEnv: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--api-key-env", metavar="NAME", help="Environment variable that holds the model's API key."
    ),
]
ApiBase: TypeAlias = Annotated[
    str | None, typer.Option("--api-base", metavar="URL", help="Address of the model's server.")
]
Temperature: TypeAlias = Annotated[
    float | None, typer.Option("--temperature", metavar="T", help="Temperature of the model.")
]
MaxTokens: TypeAlias = Annotated[
    int | None, typer.Option("--max-tokens", metavar="N", min=1, help="Most tokens of one answer.")
]
SessionField: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--session-field", metavar="FIELD", help="One session a value of FIELD; else one for all rows."
    ),
]
ExpectedField: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--expected-field",
        metavar="FIELD",
        help="Field to look for in the outputs, in any case; default: expected, if rows have it.",
    ),
]
Workers: TypeAlias = Annotated[
    int | None,
    typer.Option(
        "--workers", "-w", metavar="N", min=1, help="Worker processes. Default: the setting pool_size."
    ),
]
Timeout: TypeAlias = Annotated[
    float | None,
    typer.Option("--timeout", metavar="SECONDS", help="Time that a row has, once a worker has it."),
]
Retries: TypeAlias = Annotated[
    int | None,
    typer.Option(
        "--retries",
        metavar="N",
        min=0,
        help="Further attempts of a row whose worker is lost, or whose model asks for another try. The row may then "
        "ask the model twice.",
    ),
]
JournalPath: TypeAlias = Annotated[
    str | None,
    typer.Option("--journal", metavar="FILE", help="Where finished rows are kept. Default: OUTPUT.journal."),
]
Resume: TypeAlias = Annotated[
    bool, typer.Option("--resume", help="Run only the rows that an earlier run has not recorded.")
]
RetryFailed: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--retry-failed", help="Run only the rows that failed; with --resume, also the missing ones."
    ),
]
Overwrite: TypeAlias = Annotated[
    bool, typer.Option("--overwrite", help="Forget an earlier run: its journal and its output are replaced.")
]
Config: TypeAlias = Annotated[
    str | None, typer.Option("--config", metavar="FILE", help="TOML file with the pool's settings.")
]
Profile: TypeAlias = Annotated[
    str | None, typer.Option("--profile", metavar="NAME", help="Settings for a purpose: dev, test or prod.")
]
Settings: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="One setting of the pool. May be repeated."),
]
Progress: TypeAlias = Annotated[
    bool, typer.Option("--progress", help="Draw the bar also where stderr is no terminal.")
]
Quiet: TypeAlias = Annotated[
    bool, typer.Option("--quiet", "-q", help="No progress and no summary; errors only.")
]
Verbose: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--verbose", "-v", help="Also print tracebacks, what workers write, and why they are replaced."
    ),
]
AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON.")]
