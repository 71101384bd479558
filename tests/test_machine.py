"""What the machine grants: limits of containers and of the environment."""

from taxonet.machine import container_limit, cpu_count, processor, thread_count


def test_a_container_s_limit_is_obeyed(tmp_path):
    assert container_limit(tmp_path) is None
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert container_limit(tmp_path) is None
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    assert container_limit(tmp_path) == 1
    (tmp_path / "cpu.max").write_text("300000 100000\n")
    assert container_limit(tmp_path) == 3


def test_omp_num_threads_says_fewer_and_never_more(monkeypatch):
    for asked, threads in (
        ("1", 1),
        ("1,4", 1),
        (str(cpu_count() + 7), cpu_count()),
        ("0", cpu_count()),
        ("x", cpu_count()),
    ):
        monkeypatch.setenv("OMP_NUM_THREADS", asked)
        assert thread_count() == threads


def test_the_processor_has_a_name():
    assert processor().strip()
