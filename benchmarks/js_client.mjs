// The official JavaScript client against a running server; benchmarks/js_client.py starts it.
import OpenAI from 'openai';

const client = new OpenAI({ baseURL: process.argv[2], apiKey: process.argv[3], maxRetries: 0 });
const messages = [{ role: 'user', content: 'I have a parrot.' }];
const model = 'agent@0';

const checks = {
  async models() {
    const ids = (await client.models.list()).data.map((m) => m.id);
    return ids.includes('agent') && ids.includes('agent@0');
  },
  async chat() {
    const made = await client.chat.completions.create({ model, messages, max_tokens: 6 });
    return made.choices[0].message.role === 'assistant' && made.usage.completion_tokens <= 6;
  },
  async stream() {
    const whole = await client.chat.completions.create({
      model, messages, max_tokens: 6, temperature: 0 });
    const stream = await client.chat.completions.create({
      model, messages, max_tokens: 6, temperature: 0, stream: true,
      stream_options: { include_usage: true } });
    let text = '', usage = null, finish = null;
    for await (const chunk of stream) {
      text += chunk.choices[0]?.delta?.content ?? '';
      finish = chunk.choices[0]?.finish_reason ?? finish;
      usage = chunk.usage ?? usage;
    }
    return text === whole.choices[0].message.content && usage.total_tokens > 0 && finish !== null;
  },
  async abort() {
    const stream = await client.chat.completions.create({
      model, messages, max_tokens: 400, stream: true });
    for await (const _ of stream) break; // the client closes the connection
    return true;
  },
  async several() {
    const made = await client.chat.completions.create({
      model, messages, max_tokens: 4, n: 3, seed: 1, temperature: 1 });
    return made.choices.length === 3;
  },
  async logprobs() {
    const made = await client.chat.completions.create({
      model, messages, max_tokens: 3, logprobs: true, top_logprobs: 2 });
    const of = made.choices[0].logprobs.content;
    return of.length > 0 && of[0].top_logprobs.length === 2 && of[0].logprob <= 0;
  },
  async completions() {
    const made = await client.completions.create({ model, prompt: 'Once', max_tokens: 5 });
    return made.choices[0].text.length > 0;
  },
  async embeddings() {
    const made = await client.embeddings.create({ model: 'agent', input: ['a parrot', 'a cello'] });
    return made.data.length === 2 && made.data[0].embedding.length > 100;
  },
  async unknown_model() {
    try {
      await client.chat.completions.create({ model: 'agent@99', messages });
    } catch (e) {
      return e instanceof OpenAI.NotFoundError && e.code === 'model_not_found';
    }
    return false;
  },
  async bad_value() {
    try {
      await client.chat.completions.create({ model, messages, n: 10000 });
    } catch (e) {
      return e instanceof OpenAI.UnprocessableEntityError;
    }
    return false;
  },
};

for (const [name, check] of Object.entries(checks)) {
  let told;
  try {
    told = (await check()) ? 'ok' : 'wrong';
  } catch (e) {
    told = `${e.constructor.name}: ${e.message}`;
  }
  console.log(JSON.stringify({ name, told }));
}
