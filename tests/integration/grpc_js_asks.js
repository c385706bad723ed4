// Run by node: what @grpc/grpc-js gets from a hearthd, as JSON. Arguments: its node_modules, the folder of protos, the address.
const [modules, protos, address] = process.argv.slice(2);
const grpc = require(modules + '/@grpc/grpc-js');
const loader = require(modules + '/@grpc/proto-loader');

const options = {keepCase: true, longs: Number, enums: String, defaults: true, includeDirs: [protos]};
const { inference } = grpc.loadPackageDefinition(loader.loadSync('inference.proto', options));
const client = new inference.GRPCInferenceService(address, grpc.credentials.createInsecure(),
    {'grpc.max_receive_message_length': -1, 'grpc.max_send_message_length': -1});

function request(model, rows, id) {
  const values = Buffer.from(new Float32Array(4 * rows).fill(1).buffer);
  return {model_name: model, id, inputs: [{name: 'x', datatype: 'FP32', shape: [rows, 4]}], raw_input_contents: [values]};
}

function values(answer) {
  const raw = answer.raw_output_contents[0];
  return new Float32Array(raw.buffer.slice(raw.byteOffset, raw.byteOffset + raw.length));
}

function infer(...what) {
  return new Promise((resolve, reject) =>
    client.ModelInfer(request(...what), (error, answer) => error ? reject(error) : resolve(answer)));
}

function cancelled() {
  return new Promise((resolve) => {
    const call = client.ModelInfer(request('typed', 1, ''), (error) => resolve(error ? grpc.status[error.code] : 'OK'));
    call.cancel();
  });
}

function stream(count) {
  return new Promise((resolve, reject) => {
    const ids = [];
    const call = client.ModelStreamInfer();
    call.on('data', (answer) => ids.push(answer.infer_response.id));
    call.on('error', reject);
    call.on('end', () => resolve(ids));
    for (let i = 0; i < count; ++i) call.write(request('batched', 1, String(i)));
    call.end();
  });
}

async function main() {
  const many = await Promise.all([...Array(100).keys()].map((i) => infer('batched', 2, String(i))));
  const large = values(await infer('typed', 500000, ''));  // 8 MB, more than a window of flow control
  const refusal = await infer('nobody', 1, '').catch((error) => [grpc.status[error.code], error.details]);
  console.log(JSON.stringify({
    ids: many.map((answer) => answer.id), first: [...values(many[0])],
    large: [large.length, large.every((value) => value === 2)], refusal, cancelled: await cancelled(),
    stream: await stream(50),
  }));
  client.close();
}

main().catch((error) => { console.error(error); process.exit(1); });
