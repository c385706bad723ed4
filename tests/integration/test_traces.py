"""The reader of the public Azure Functions trace, on files with that trace's columns."""

import io
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "bench"))
import azure_trace  # noqa: E402

MINUTES = [str(minute) for minute in range(1, 1441)]


def invocations(*functions):
    """Each: (application, function, {minute: count})."""
    lines = [",".join(["HashOwner", "HashApp", "HashFunction", "Trigger", *MINUTES])]
    for application, function, counts in functions:
        lines.append(",".join(["owner", application, function, "http", *(str(counts.get(m, 0)) for m in MINUTES)]))
    return io.StringIO("\n".join(lines) + "\n")


def memory(**megabytes):
    lines = ["HashOwner,HashApp,SampleCount,AverageAllocatedMb,AverageAllocatedMb_pct1"]
    lines += [f"owner,{application},100,{size},1" for application, size in megabytes.items()]
    return io.StringIO("\n".join(lines) + "\n")


def test_the_functions_of_an_application_are_uses_of_one_model_within_their_minutes():
    uses = azure_trace.read(invocations(("a", "f", {"1": 2}), ("a", "g", {"3": 1}), ("b", "f", {"1440": 1})),
                            memory(a=170, b=34), seed=1)
    assert [(int(at // 60), model, size) for at, model, size, _ in uses] == [
        (0, 0, 170_000_000), (0, 0, 170_000_000), (2, 0, 170_000_000), (1439, 1, 34_000_000)]
    assert all(load_seconds >= size / 1.7e9 for _, _, size, load_seconds in uses)
    assert [at for at, *_ in uses] == sorted(at for at, *_ in uses)


def test_an_application_of_unknown_size_is_left_out():
    assert azure_trace.read(invocations(("a", "f", {"1": 1})), memory(b=1), seed=1) == []


def test_the_same_seed_gives_the_same_trace_and_so_many_models():
    def read(seed):
        functions = [(f"a{number}", "f", {"7": 3}) for number in range(20)]
        return azure_trace.read(invocations(*functions), memory(**{f"a{n}": 10 + n for n in range(20)}), seed, models=5)
    assert read(1) == read(1) != read(2)
    assert {model for _, model, *_ in read(1)} == set(range(5))


def test_a_trace_is_written_as_the_simulator_reads_it():
    out = io.StringIO()
    azure_trace.write([(0.5, 0, 100, 0.25)], out)
    assert out.getvalue() == "seconds,model,bytes,load_seconds\n0.500,0,100,0.2500\n"
    with pytest.raises(KeyError):
        azure_trace.memory_of(io.StringIO("HashOwner,HashApp\nowner,a\n"))
