"""The page in a real browser: what a person does with it, by what can be read on it.

Debian's chromium through Playwright; one browser and one server for all tests.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess

import pytest
from playwright.sync_api import expect, sync_playwright

from benchmarks import page_live
from benchmarks.serve_live import Live, serve_config
from dreaming.agent import Agent
from dreaming.sleep import review
from dreaming.types import Dream, Quality
from tests import serve_media_test

EVIL = '<img src=x onerror="document.title=\'owned\'"><b>bold</b>'
TOKEN = 'secret-' * 4
HEARD = re.compile('morning|weather|beautiful|today', re.IGNORECASE)
SLOW = 120_000  # ms: a busy machine


@pytest.fixture(scope='module')
def chromium(tmp_path_factory):
  path = shutil.which('chromium') or shutil.which('chromium-browser')
  if path is None:
    pytest.skip('system: chromium, which shows the page, is not installed: apt install chromium')
  with sync_playwright() as p:
    args = ['--no-sandbox', '--disable-gpu', '--use-fake-ui-for-media-stream',
            '--use-fake-device-for-media-stream']  # fmt: skip
    if shutil.which('espeak-ng'):
      note = tmp_path_factory.mktemp('note') / 'note.wav'
      words = 'Good morning. The weather is beautiful today.'
      subprocess.run(['espeak-ng', '-s', '130', '-w', str(note), words], check=True)
      args.append(f'--use-file-for-fake-audio-capture={note}')
    browser = p.chromium.launch(executable_path=path, args=args)
    yield browser
    browser.close()


@pytest.fixture(scope='module')
def live(tmp_path_factory):
  config = serve_config(tmp_path_factory, 'page')
  tokens = tmp_path_factory.mktemp('tokens') / 'tokens'
  tokens.write_text(f'me admin {TOKEN}\n')
  tokens.chmod(0o600)
  config.serve.tokens, config.serve.slots, config.life.user = str(tokens), 2, 'Ana'
  with Agent(config) as agent:
    page_live.fill(agent, experiences=70, nights=1)
    with Live(agent, TOKEN) as live:
      live.server.nights.command = page_live.COMMAND
      yield live


@pytest.fixture
def page(chromium, live):
  """A page whose every error is the test's."""
  context = chromium.new_context(base_url=live.url, viewport={'width': 1100, 'height': 800})
  context.set_default_timeout(SLOW)
  context.add_init_script(  # about:blank has no storage
    f"if (location.host) sessionStorage.setItem('dreaming.token', '{TOKEN}')"
  )
  page = context.new_page()
  wrong: list[str] = []
  page.on('pageerror', lambda e: wrong.append(str(e)))
  page.on('console', lambda m: wrong.append(m.text) if m.type == 'error' else None)
  page.on('dialog', lambda d: wrong.append(d.message) or d.dismiss())
  page.wrong = wrong
  yield page
  context.close()
  assert not wrong


expect.set_options(timeout=SLOW)


def button(page, name: str, exact: bool = True):
  return page.get_by_role('button', name=name, exact=exact)


def view(page, name: str) -> None:
  page.get_by_role('navigation').get_by_role('link', name=name).click()
  expect(page.get_by_role('heading', level=1, name=name)).to_be_attached()
  expect(page.get_by_role('main')).to_have_attribute('aria-busy', 'false')


def say(page, text: str) -> None:
  page.get_by_label('Message').fill(text)
  button(page, 'Send').click()
  expect(page.get_by_role('article', name='Reply').last.get_by_text(' spoke')).to_be_visible()


# ---- With no manual ----


def test_a_person_talks_lets_it_sleep_sees_what_it_learned_and_rolls_back(page, live):
  page.goto('/')
  expect(page.get_by_text('Generation 1 serves')).to_be_visible()
  say(page, page_live.TOLD[3][0])
  reply = page.get_by_role('article', name='Reply').last
  expect(reply.get_by_text('Generation 1 spoke')).to_be_visible()
  reply.get_by_role('button', name='Thumbs up').click()
  expect(page.get_by_text('it will dream of this')).to_be_visible()
  assert live.agent.diary.experiences()[-1].scores.feedback > 5

  view(page, 'Nights')
  button(page, 'Start a night').click()
  expect(page.get_by_role('heading', name='It sleeps')).to_be_visible()
  expect(page.get_by_role('img', name=re.compile('Losses.* from 2'))).to_be_visible()
  expect(page.get_by_role('heading', name='Night 2 is over: promoted')).to_be_visible()
  expect(page.get_by_text('Generation 2 serves now.')).to_be_visible()
  page.get_by_role('link', name='See what it learned').click()
  row = page.get_by_role('row').filter(has_text='Which nuts can Ana not eat?')
  expect(row).to_contain_text('told: walnuts')
  expect(row.get_by_text('walnuts').last).to_be_visible()
  expect(
    page.get_by_role('row', name=re.compile('Facts learned.*at least 10%.*ok'))
  ).to_be_visible()
  expect(page.get_by_text('Ana is allergic to walnuts.').first).to_be_visible()
  button(page, 'Ask generation 1 the same').click()
  expect(row.get_by_text('not asked')).to_have_count(0)

  view(page, 'Identity')
  expect(page.get_by_text('Generation 2 serves')).to_be_visible()
  button(page, 'Roll back to generation 1').click()
  expect(page.get_by_text('Generation 1 serves', exact=True)).to_be_visible()
  assert live.agent.diary.active() == 1
  view(page, 'Chat')
  say(page, 'Good morning.')
  expect(page.get_by_text('Generation 1 spoke').last).to_be_visible()


# ---- Chat ----


def test_the_keyboard_alone_sends_and_focus_is_seen(page):
  page.goto('/')
  expect(page.get_by_label('Message')).to_be_focused()
  page.keyboard.type('First line')
  page.keyboard.press('Shift+Enter')
  page.keyboard.type('second line')
  page.keyboard.press('Enter')
  expect(page.get_by_text('First line\nsecond line')).to_be_visible()
  expect(page.get_by_role('article', name='Reply').last.get_by_text(' spoke')).to_be_visible()
  expect(page.get_by_label('Message')).to_be_focused()
  page.keyboard.press('Shift+Tab')
  outline = page.evaluate('getComputedStyle(document.activeElement).outlineStyle')
  assert outline == 'solid'


def test_a_picture_is_shown_and_a_voice_note_said(page, live, tmp_path):
  if shutil.which('espeak-ng') is None:
    pytest.skip('system: espeak-ng, which speaks here, is not installed: apt install espeak-ng')
  sign = tmp_path / 'sign.png'
  sign.write_bytes(serve_media_test.sign())
  page.goto('/')
  page.get_by_label('Pictures to show').set_input_files(sign)
  expect(page.get_by_role('img', name='A picture')).to_be_visible()
  button(page, 'Leave the picture out').click()
  expect(page.get_by_role('img', name='A picture')).to_have_count(0)
  page.get_by_label('Pictures to show').set_input_files(sign)
  say(page, 'What does it say?')
  reply = page.get_by_role('article', name='Reply').last
  expect(reply.get_by_text(f'I see text in the picture: {serve_media_test.SIGN}.')).to_be_visible()
  mine = page.get_by_role('article', name='You said').last
  expect(
    mine.get_by_text(f'text in the picture: {serve_media_test.SIGN}', exact=True)
  ).to_be_visible()

  button(page, 'Record a voice note').click()
  expect(button(page, 'Stop recording')).to_be_visible()
  page.wait_for_timeout(6000)  # the fake microphone says it over and over, from anywhere
  button(page, 'Stop recording').click()
  expect(page.get_by_label('A voice note', exact=True)).to_be_visible()
  button(page, 'Send').click()
  mine = page.get_by_role('article', name='You said').last
  expect(mine.get_by_text(HEARD)).to_be_visible()
  logged = live.agent.diary.experiences(limit=1, newest_first=True)[0]
  assert HEARD.search(logged.content) and logged.media[0].kind == 'audio'

  page.reload()  # both are in the diary
  shown = page.get_by_role('img', name=re.compile(serve_media_test.SIGN))
  expect(shown).to_be_visible()
  assert shown.evaluate('e => e.complete && e.naturalWidth') == 760
  heard = page.get_by_label('a voice note of').last
  page.wait_for_function('() => [...document.querySelectorAll("audio")].at(-1).duration > 0')
  expect(heard).to_be_visible()
  view(page, 'Diary')
  page.get_by_text('Image: text in the picture').first.click()
  expect(page.get_by_role('img', name=re.compile(serve_media_test.SIGN))).to_be_visible()
  with_media = [e.id for e in live.agent.diary.experiences() if e.media or 'shown' in e.metadata]
  live.agent.forget(with_media)


def test_while_it_sleeps_offline_it_says_so_and_answers_on_waking(page, live):
  page.goto('/')
  doze = live.server.talk.doze
  doze.fall()
  page.get_by_label('Message').fill('Are you asleep?')
  button(page, 'Send').click()
  expect(page.get_by_text('It sleeps, and answers when it wakes.')).to_be_visible()
  while doze._awake._loop is None:
    page.wait_for_timeout(20)
  assert doze.held == 1
  doze._awake._loop.call_soon_threadsafe(doze.rise)  # the server's, since somebody waits
  reply = page.get_by_role('article', name='Reply').last
  expect(reply.get_by_text('Generation 1 spoke')).to_be_visible()
  expect(page.get_by_text('It sleeps, and')).to_have_count(0)


def test_what_it_recalled_stands_beside_an_answer(page):
  """A random model finds nothing worth reading, so what it recalled is made up here."""
  page.goto('/')
  say(page, 'It rains.')
  reply = page.get_by_role('article', name='Reply').last
  memory = {'experience': 1, 'content': EVIL, 'score': 1.2, 'relevance': 0.81, 'recency': 0.5}

  def more(route):
    why = route.fetch().json()
    why['recalled'] = [memory | {'importance': 0.7}]
    route.fulfill(json=why)

  page.route('**/api/replies/*/why', more)
  reply.get_by_text('It recalled nothing').click()
  expect(reply.get_by_text(EVIL)).to_be_visible()
  expect(reply.get_by_text('relevance 0.81, recency 0.50, importance 0.70')).to_be_visible()
  reply.get_by_text('All that the model read').click()
  expect(reply.locator('pre')).to_contain_text('It rains.')


def test_a_message_that_is_refused_is_not_lost(page):
  page.goto('/')
  box = page.get_by_label('Message')
  box.fill('x' * 70_000)
  button(page, 'Send').click()
  expect(page.get_by_role('alert')).to_contain_text('decode.max_message_bytes')
  assert len(box.input_value()) == 70_000
  page.wrong.clear()  # the browser's own line for a status of 422


# ---- What others wrote is text ----


def test_markup_of_users_and_models_is_text(page, live):
  evil = {'content': EVIL, 'response': EVIL, 'user': '<i>Eve</i>', 'trust': 'third_party'}
  made = live.http.post('/api/experiences', json=evil).json()
  try:
    for path, count in (('/', 2), ('/#/diary', 2), ('/#/identity', 1)):
      page.goto('about:blank')
      page.goto(path)
      expect(page.get_by_role('main')).to_have_attribute('aria-busy', 'false')
      expect(page.get_by_text(EVIL)).to_have_count(count)
      assert page.locator('main img, main b:has-text("bold"), main i:has-text("Eve")').count() == 0
      assert page.title() != 'owned'
  finally:
    live.http.post('/api/forget', json={'ids': [made['id']]})


@pytest.mark.parametrize('how', ["e.innerHTML = '<b>x</b>'", "e.setAttribute('onclick', 'x()')"])
def test_the_policy_refuses_what_could_make_markup_of_text(page, how):
  page.goto('/')
  refused = page.evaluate(
    f"""() => {{ const e = document.createElement('a');
    try {{ {how}; return 'done'; }} catch (x) {{ return x.name; }} }}"""
  )
  assert refused == 'TypeError'
  assert page.wrong
  page.wrong.clear()


# ---- Diary ----


def test_an_answer_that_comes_late_is_not_shown(page):
  page.goto('/#/diary')
  held = []
  page.route('**/api/diary*text=cello*', lambda route: held.append(route))
  page.get_by_label('Search the diary').fill('cello')
  page.keyboard.press('Enter')
  page.get_by_label('Search the diary').fill('')
  page.get_by_label('Night', exact=True).select_option('night 1')
  expect(page.get_by_text('1 to 2 of 2')).to_be_visible()
  with page.expect_response('**/api/diary*text=cello*'):
    held[0].continue_()
  page.wait_for_timeout(200)
  expect(page.get_by_text('1 to 2 of 2')).to_be_visible()


def test_the_diary_is_paged_searched_filtered_and_forgotten(page, live):
  page.goto('/#/diary')
  expect(page.get_by_text(re.compile('^1 to 50 of'))).to_be_visible()
  button(page, 'Older').click()
  expect(page.get_by_text(re.compile('^51 to'))).to_be_visible()
  page.get_by_label('Search the diary').fill('cello')
  page.keyboard.press('Enter')
  expect(page.get_by_text('1 to 1 of 1')).to_be_visible()
  expect(page.get_by_role('listitem').filter(has_text='plays the cello')).to_contain_text(
    'importance'
  )
  page.get_by_label('Experiences', exact=True).select_option('that come to mind')
  expect(page.get_by_text('plays the cello')).to_be_visible()
  page.get_by_label('Experiences', exact=True).select_option('with these words')
  page.get_by_label('Search the diary').fill('')
  page.get_by_label('Night', exact=True).select_option('night 1')
  expect(page.get_by_text('1 to 2 of 2')).to_be_visible()

  id = live.http.post('/api/experiences', json={'content': 'To be forgotten.'}).json()['id']
  page.get_by_label('Night', exact=True).select_option('all')
  page.get_by_role('listitem').filter(has_text='To be forgotten.').get_by_role('checkbox').check()
  button(page, 'Forget…').click()
  dialog = page.get_by_role('dialog')
  expect(dialog).to_contain_text('stays in the weights')
  button(dialog, 'Cancel').click()
  assert live.http.get(f'/api/experiences/{id}').status_code == 200
  button(page, 'Forget…').click()
  button(dialog, 'Forget').click()
  expect(page.get_by_text('1 experience forgotten.')).to_be_visible()
  assert live.http.get(f'/api/experiences/{id}').status_code == 404


def test_a_log_is_imported_and_approved(page, live, tmp_path):
  file = tmp_path / 'old (1).jsonl'
  lines = [{'time': 1.9e9 + i, 'speaker': 'Ana', 'content': f'Old news {i}. ' + 'x' * 30_000}
           for i in range(30)]  # fmt: skip
  file.write_text(''.join(json.dumps(x) + '\n' for x in lines))  # more than one request holds
  page.goto('/#/diary')
  with page.expect_file_chooser() as chooser:
    button(page, 'Import…').click()
  chooser.value.set_files(file)
  expect(page.get_by_text('30 experiences imported')).to_be_visible()
  page.get_by_label('Trust').select_option('waiting for approval')
  expect(page.get_by_text('1 to 30 of 30')).to_be_visible()
  page.get_by_label('Choose all on this page').check()
  button(page, 'Approve').click()
  expect(page.get_by_text('30 experiences approved')).to_be_visible()
  expect(page.get_by_text('Nothing like this is in the diary.')).to_be_visible()
  live.http.post('/api/forget', json={'ids': live.agent.diary.browse(text='Old news')[0]})


# ---- Nights, identity ----


def test_a_night_is_cancelled_after_asking(page, live, monkeypatch):
  monkeypatch.setenv('PAGE_PAUSE', '30')
  page.goto('/#/nights')
  button(page, 'Start a night').click()
  button(page, 'Cancel the night').click()
  button(page.get_by_role('dialog'), 'Cancel the night').click()
  expect(page.get_by_role('heading', name='The night ended: cancelled')).to_be_visible()
  expect(
    page.get_by_role('heading', name=re.compile('was interrupted|It is awake'))
  ).to_be_visible()
  live.http.post('/api/nights/current/cancel', json={'abandon': True})


def test_two_generations_are_compared_facts_and_forgetting_seen(page):
  page.goto('/#/identity')
  page.get_by_label('Questions').fill('What is the parrot called?\n\nWho sings?')
  page.get_by_label('First').select_option('The base')
  page.get_by_label('Second').select_option('Generation 1')
  button(page, 'Compare').click()
  table = page.get_by_role('region', name='Answers')
  expect(table.get_by_role('row')).to_have_count(3)
  page.get_by_label('Show', exact=True).select_option('held')
  expect(page.get_by_text(page_live.TOLD[0][0])).to_be_visible()
  matrix = page.get_by_role('region', name='Forgetting matrix')
  expect(matrix).to_contain_text('90%')


def test_a_night_that_waits_is_reviewed(page, live):
  diary = live.agent.diary
  number = diary.begin_night({'review': {'dreams': True, 'generations': False}})
  told = diary.experiences(limit=1)[0]
  with diary.transaction():
    dreams = [
      Dream(
        id=0,
        night=number,
        style='statement',
        text=text,
        sources=(told.id,),
        quality=Quality(gain=float(i)),
      )  # fmt: skip
      for i, text in enumerate(('Ana sings.', 'Ana swims.'), start=1)
    ]
    diary.add_dreams(dreams)
    review.stop(diary, number, review.DREAMS)
  page.goto('/#/nights')
  page.get_by_role('link', name='Review its dreams').click()
  expect(page.get_by_role('heading', name='It waits for you')).to_be_visible()
  first, second = (
    page.get_by_role('listitem').filter(has_text=d.text).first for d in dreams
  )  # fmt: skip
  button(first, 'Reject').click()
  expect(first.get_by_text('Rejected')).to_be_visible()
  button(second, 'Edit').click()
  second.get_by_label('Text of the dream').fill('Ana rows.')
  button(second, 'Save').click()
  expect(second.get_by_text('Edited')).to_be_visible()
  assert [(d.text, str(d.status)) for d in diary.dreams(number)] == [
    ('Ana sings.', 'rejected'), ('Ana rows.', 'kept'),
  ]  # fmt: skip
  button(page, 'Refuse it').click()
  expect(page.get_by_role('heading', name=re.compile('It is awake'))).to_be_visible()
  assert diary.night(number).state == 'rejected'


# ---- Phones, light and dark ----


def test_a_phone_has_no_horizontal_scroll_and_dark_is_dark(page):
  page.set_viewport_size({'width': 375, 'height': 700})
  for scheme in ('light', 'dark'):
    page.emulate_media(color_scheme=scheme)
    for name in ('chat', 'diary', 'nights', 'nights/1', 'identity'):
      page.goto('about:blank')
      page.goto(f'/#/{name}')
      expect(page.get_by_role('main')).to_have_attribute('aria-busy', 'false')
      assert page.evaluate('document.documentElement.scrollWidth') <= 375, (name, scheme)
      back, ink = page.evaluate(
        """['backgroundColor', 'color'].map((k) => {
        const [r, g, b] = getComputedStyle(document.body)[k].match(/[0-9.]+/g).map(Number);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b; })"""
      )
      assert (back > 200 and ink < 80) if scheme == 'light' else (back < 60 and ink > 180)
    for link in page.get_by_role('navigation').get_by_role('link').all():
      assert link.bounding_box()['height'] >= 40  # a thumb hits it


# ---- Tokens ----


def test_a_token_is_asked_for_once_and_kept_for_the_tab(chromium, live):
  context = chromium.new_context(base_url=live.url)
  context.set_default_timeout(SLOW)
  page = context.new_page()
  page.goto('/')
  page.get_by_label('Token', exact=True).fill('wrong-' * 5)
  button(page, 'Continue').click()
  expect(page.get_by_text('the token is wrong')).to_be_visible()
  page.get_by_label('Token', exact=True).fill(TOKEN)
  button(page, 'Continue').click()
  expect(page.get_by_label('Message')).to_be_visible()
  page.reload()
  expect(page.get_by_label('Message')).to_be_visible()
  assert page.get_by_role('dialog').count() == 0
  assert page.evaluate('Object.values(sessionStorage)') == [TOKEN]
  assert page.evaluate('Object.keys(localStorage).length + document.cookie.length') == 0
  context.close()
