#!/usr/bin/env python3
"""A small tree with one breach of every kind: check_includes.py has to see each, and nothing else."""

import pathlib
import sys
import tempfile
import unittest

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).parent))
import check_includes  # noqa: E402

GOOD = {
    "server/base/status.h": "#pragma once\n#include <string>\n",
    "server/base/log.cc": "#include <spdlog/spdlog.h>\n",
    "server/base/yaml_reader.cc": "#include <yaml-cpp/yaml.h>\n",
    "server/model/model.h": '#pragma once\n#include "server/base/status.h"\n',
    "server/torch_backend/load.cc": '#include <torch/script.h>\n#include "server/model/model.h"\n',
    "server/frontend/rpc.cc": '#include <grpcpp/grpcpp.h>\n#include "server/model/model.h"\n',
    "server/config/config.h": '#pragma once\n#include "server/base/status.h"\n',
    "server/app.cc": '#include "server/config/config.h"\n#include "server/model/model.h"\n',
    "client/client.h": "#pragma once\n#include <grpcpp/grpcpp.h>\n",
    "tests/fakes/fake.h": '#pragma once\n#include "server/model/model.h"\n',
}
BREACHES = {
    "server/base/up.cc": '#include "server/model/model.h"\n',
    "server/storage/up.cc": '#include "server/frontend/rpc.h"\n',
    "server/residency/beside.cc": '#include "server/torch_backend/load.h"\n',
    "server/residency/torch.cc": "#include <ATen/ATen.h>\n",
    "server/serving/wire.cc": "#include <google/protobuf/message.h>\n",
    "server/serving/config.cc": '#include "server/config/config.h"\n',
    "server/serving/log.cc": "#include <fmt/format.h>\n",
    "server/config/yaml.cc": "#include <yaml-cpp/yaml.h>\n",
    "server/frontend/bare.h": "// no guard\n",
    "server/frontend/gone.cc": '#include "server/base/gone.h"\n',
    "server/model/relative.cc": '#include "model.h"\n',
    "server/model/test.cc": '#include "tests/fakes/fake.h"\n',
    "client/server.cc": '#include "server/base/status.h"\n',
    "tests/base/clash.cc": "#include <torch/torch.h>\n#include <grpcpp/grpcpp.h>\n",
}


class CheckIncludes(unittest.TestCase):
    def breaches(self, files):
        with tempfile.TemporaryDirectory() as root:
            for name, text in files.items():
                path = pathlib.Path(root, name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
            return check_includes.check(root)

    def test_a_clean_tree_passes(self):
        self.assertEqual(self.breaches(GOOD), [])

    def test_every_breach_is_seen(self):
        for name, text in BREACHES.items():
            with self.subTest(name):
                found = self.breaches({**GOOD, name: text})
                self.assertTrue(found)
                self.assertTrue(all(line.startswith(f"{name}:") for line in found), found)

    def test_an_empty_tree_is_a_mistake(self):
        self.assertTrue(self.breaches({}))


if __name__ == "__main__":
    unittest.main()
