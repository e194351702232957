"""A real `transformers.Trainer` whose checkpoints register themselves while it runs."""

from __future__ import annotations

from pathlib import Path

import torch
import transformers
from server_helpers import PASSWORD, serving
from toys import make_config, make_tokenizer

from serve_apps.control_plane.config import ServerConfig
from ztom.client import Client, RegisterCheckpoints


class Examples(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        ids = (torch.arange(16) * 7 + index) % 300 + 3
        return {"input_ids": ids, "labels": ids, "attention_mask": torch.ones_like(ids)}


def test_every_saved_checkpoint_becomes_a_file_of_the_project(tmp_path: Path) -> None:
    with serving(ServerConfig(data=tmp_path / "data", poll_s=0.05)) as server:
        server.as_user("ada")
        with Client.login(server.url, "ada", PASSWORD) as client:
            project = client.create_project("training")
            torch.manual_seed(0)
            trainer = transformers.Trainer(
                model=transformers.AutoModelForCausalLM.from_config(make_config("llama")),
                args=transformers.TrainingArguments(
                    output_dir=str(tmp_path / "out"),
                    max_steps=4,
                    save_steps=2,
                    per_device_train_batch_size=4,
                    report_to=[],
                    use_cpu=True,
                    disable_tqdm=True,
                ),
                train_dataset=Examples(),
                processing_class=make_tokenizer(),
                callbacks=[RegisterCheckpoints(client, project.id)],
            )
            trainer.train()
            server.scored(server.as_user("ada"), project.id)
            files = client.project(project.id).files
    assert [file.file_name for file in files] == ["checkpoint-2", "checkpoint-4"]
    assert [file.status for file in files] == ["VALID", "VALID"]
    assert (files[1].total_weight_contribution or 0) > 0
