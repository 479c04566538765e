"""Pictures of pages as people see them: on a phone, a laptop and a large screen, light and dark. Needs `make docs` before, and Chromium

    python tools/screenshots.py FOLDER [index.html learner/tune.html#learner.bayes_tune ...]"""
import sys
from pathlib import Path
from browser import browsing, served

root = Path(__file__).resolve().parent.parent
widths = dict(phone=(390, 844), laptop=(1280, 860), screen=(1920, 1080))

def shoot(browser, url, name, folder):
    "A picture of the page `name` for each width and scheme"
    for scheme in ('light', 'dark'):
        page = browser.new_page(color_scheme=scheme)
        for kind,(w,h) in widths.items():
            page.set_viewport_size(dict(width=w, height=h))
            page.goto(f'{url}/{name}')
            page.wait_for_timeout(400)  # the page scrolls to its anchor
            page.screenshot(path=folder/f"{name.replace('/', '_').replace('#', '.')}-{kind}-{scheme}.png")
        page.close()

def main(folder, *names):
    with browsing() as browser, served(root/'_docs') as url:
        for o in names or ['index.html']: shoot(browser, url, o, Path(folder))

if __name__=='__main__': main(*sys.argv[1:])
