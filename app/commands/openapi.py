"""`warmstart openapi`: what clients are made of."""

import typer

app = typer.Typer()


@app.command("openapi")
def openapi_command() -> None:
    """Print the OpenAPI document, which a running service has at /openapi.json."""
    import orjson

    from app.main import create_app
    from app.settings import Settings

    typer.echo(orjson.dumps(create_app(Settings()).openapi(), option=orjson.OPT_INDENT_2))
