"""``ztom cluster``: machines that become one Ray cluster."""

from __future__ import annotations

from typing import Annotated

import typer

from ztom.cli.options import Json, command_group, examples

cluster = command_group(
    "cluster",
    "Make machines one cluster: start its head, join it.",
    "ztom cluster start --host 10.0.0.5",
    "ztom cluster join 10.0.0.5:6379 --host 10.0.0.6",
)

Host = Annotated[str, typer.Option(help="Address of this machine in the network of the cluster.")]
Cpus = Annotated[
    int | None, typer.Option(min=0, help="Give the cluster so many processors of this machine.")
]
Gpus = Annotated[
    int | None, typer.Option(min=0, help="Give the cluster so many GPUs of this machine.")
]
Resources = Annotated[
    list[str] | None,
    typer.Option("--resource", metavar="NAME=AMOUNT", help="Add a resource; may be repeated."),
]
Labels = Annotated[
    list[str] | None,
    typer.Option("--label", metavar="NAME=VALUE", help="Add a label; may be repeated."),
]
Memory = Annotated[
    int | None, typer.Option(min=1, help="Keep so many MiB of memory for Ray's objects.")
]
Block = Annotated[
    bool, typer.Option("--block", help="Stay until the node ends, as an init system wants it.")
]


@cluster.command("start", epilog=examples("ztom cluster start --host 10.0.0.5"))
def cluster_start(
    host: Host,
    port: Annotated[
        int, typer.Option(min=1, max=65535, help="Let others join at this port.")
    ] = 6379,
    dashboard_port: Annotated[
        int, typer.Option(min=1, max=65535, help="Take jobs and show the dashboard at this port.")
    ] = 8265,
    cpus: Cpus = 0,
    gpus: Gpus = None,
    resource: Resources = None,
    label: Labels = None,
    object_store_mib: Memory = None,
    block: Block = False,
    as_json: Json = False,
) -> None:
    """Start the head of a cluster on this machine; engines run on the machines that join."""
    from ztom.cli.actions.cluster import node_of, start_command

    node = node_of(
        host,
        port=port,
        dashboard_port=dashboard_port,
        cpus=cpus,
        gpus=gpus,
        resources=resource or [],
        labels=label or [],
        object_store_mib=object_store_mib,
    )
    start_command(node, block=block, as_json=as_json)


@cluster.command(
    "join", epilog=examples("ztom cluster join 10.0.0.5:6379 --host 10.0.0.6 --label pool=l4")
)
def cluster_join(
    head: Annotated[str, typer.Argument(help="Address of the head, as HOST:PORT.")],
    host: Host,
    cpus: Cpus = None,
    gpus: Gpus = None,
    resource: Resources = None,
    label: Labels = None,
    object_store_mib: Memory = None,
    block: Block = False,
    as_json: Json = False,
) -> None:
    """Make this machine a node of a cluster, on which engines and endpoints run."""
    from ztom.cli.actions.cluster import node_of, start_command

    node = node_of(
        host,
        head=head,
        cpus=cpus,
        gpus=gpus,
        resources=resource or [],
        labels=label or [],
        object_store_mib=object_store_mib,
    )
    start_command(node, block=block, as_json=as_json)


@cluster.command("settings", epilog=examples("ztom cluster settings"))
def cluster_settings(as_json: Json = False) -> None:
    """Print the variables that every node needs, for images and charts."""
    from ztom.cli.actions.cluster import settings_command

    settings_command(as_json=as_json)
