// Orders through the gateway at a fixed rate, each followed to its final state.
//
//   k6 run scripts/k6/orders.js                                   # 50 orders/s for 30 s against localhost:8080
//   k6 run -e RATE=200 -e DURATION=2m -e GATEWAY=http://localhost:8080 scripts/k6/orders.js
//
// The thresholds fail the run: every order accepted, at least 99 % of those with a good card completed.
import http from 'k6/http';
import { check, sleep } from 'k6';
import { Counter, Rate, Trend } from 'k6/metrics';

const gateway = __ENV.GATEWAY || 'http://localhost:8080';
const rate = Number(__ENV.RATE || 50);
const final = ['completed', 'failed', 'cancelled'];

const toFinal = new Trend('order_to_final', true);
const completed = new Rate('order_completed');
const declined = new Counter('order_declined');

export const options = {
  scenarios: {
    orders: {
      executor: 'constant-arrival-rate',
      rate,
      timeUnit: '1s',
      duration: __ENV.DURATION || '30s',
      preAllocatedVUs: Math.min(10 * rate, 2000),
    },
  },
  thresholds: {
    'http_req_failed{name:POST /orders}': ['rate==0'],
    order_completed: ['rate>0.99'],
  },
};

export function setup() {
  const answer = http.post(`${gateway}/auth/login`, JSON.stringify({ username: 'customer', password: 'password' }),
    { headers: { 'Content-Type': 'application/json' } });
  if (answer.status !== 200) throw new Error(`login: ${answer.status} ${answer.body}`);
  return answer.json('access_token');
}

export default function (token) {
  const headers = { 'Content-Type': 'application/json', Authorization: `Bearer ${token}` };
  const bad = Math.random() < 0.03; // every thirty-third card is declined, so that compensation is part of the load
  const sku = `sku-${String(1 + Math.floor(Math.random() * 100)).padStart(4, '0')}`;
  const price = http.get(`${gateway}/products/${sku}`, { headers, tags: { name: 'GET /products/{id}' } }).json('price');
  const posted = Date.now();
  const answer = http.post(`${gateway}/orders`, JSON.stringify({
    amount: price,
    payment_method: bad ? 'card_declined' : 'card',
    email: 'load@example.com',
    items: [{ product_id: sku, quantity: 1 }],
    address: { name: 'A. Buyer', line1: '1 Main St', city: 'Berlin', postal_code: '10115', country: 'DE' },
  }), { headers: { ...headers, 'Idempotency-Key': `k6-${posted}-${__VU}-${__ITER}` }, tags: { name: 'POST /orders' } });
  if (!check(answer, { accepted: (r) => r.status === 202 })) return;

  for (let i = 0; i < 100; i++) {
    const order = http.get(`${gateway}${answer.headers.Location}`, { headers, tags: { name: 'GET /orders/{id}' } }).json();
    if (final.includes(order.status)) {
      toFinal.add(Date.now() - posted);
      if (bad) declined.add(1);
      else completed.add(order.status === 'completed');
      return;
    }
    sleep(0.1);
  }
  completed.add(false);
}
