"""The watch over the browser can fail: it sees what leaves the machine, and what goes wrong."""

from tests.browser.notebook import open_notebook, run_all


def take(found: list[str]) -> list[str]:
    """What was found, which the fixture then no longer complains of."""
    taken = list(found)
    found.clear()
    return taken


def test_a_request_to_another_host_is_seen(page, noise):
    page.context.route("**/*", lambda route: route.abort())  # seen, and not made
    page.set_content('<img src="https://cdn.example.invalid/x.png"><img src="data:image/png;base64,">')
    page.wait_for_timeout(300)
    assert take(noise.outside) == ["https://cdn.example.invalid/x.png"]
    assert len(take(noise.errors)) >= 1


def test_errors_are_seen_wherever_they_are(page, noise):
    page.evaluate("console.error('one'); console.warn('two'); setTimeout(() => { throw new Error('three') }, 0)")
    page.wait_for_timeout(300)
    assert [error.split(" (")[0] for error in take(noise.errors)] == ["error: one", "page: three"]


def test_an_error_in_a_widget_s_view_is_seen(page, lab, noise):
    code = """import anywidget
class Broken(anywidget.AnyWidget):
    _esm = "export default { render() { throw new Error('broken view') } }"
Broken()"""
    noise.expected = "broken view"  # which comes once for each time that JupyterLab tries to draw it
    open_notebook(page, lab, lab.save("broken.ipynb", code))
    run_all(page)
    for _ in range(100):
        if noise.provoked:
            break
        page.wait_for_timeout(50)
    assert noise.provoked
