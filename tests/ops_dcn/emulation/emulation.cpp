// Runs the kernels of the CUDA library on a CPU; see cuda_emulation.h. Called by ctypes.
#include "cuda_emulation.h"

#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

#include "faults.cu"
#include "kernels.cu"
#include "plan.h"

EmulatedIndex threadIdx, blockIdx, blockDim, gridDim;

namespace emulation {
namespace {

using ops_dcn::cuda::Arguments;
using Kernel = void (*)(Arguments);

constexpr std::size_t kStackBytes = 128 * 1024;
constexpr int kWarp = 32;
constexpr std::size_t kGuardBytes = 256;
constexpr unsigned char kPoison = 0xff;  // NaN in any floating type
constexpr unsigned char kGuard = 0xa5;

enum class State { kReady, kAtBarrier, kAtWarp, kDone };

struct Fibre {
  ucontext_t start;
  jmp_buf place;
  bool started = false;
  State state = State::kDone;
  int operation = 0, step = 0;
  uint64_t sent = 0, received = 0;
  std::unique_ptr<char[]> stack{new char[kStackBytes]};
};

std::vector<std::unique_ptr<Fibre>> fibres;
jmp_buf scheduler;
Fibre* current = nullptr;
Kernel kernel = nullptr;
const Arguments* arguments = nullptr;
const char* failure = nullptr;
unsigned char* shared = nullptr;

// Back to the scheduler, until it picks this fibre again.
__attribute__((noinline)) void pause(State state) {
  current->state = state;
  if (_setjmp(current->place) == 0) _longjmp(scheduler, 1);
}

// A fibre runs one thread after another: as many as blocks are launched.
void fibre_main() {
  for (;;) {
    kernel(*arguments);
    pause(State::kDone);
  }
}

__attribute__((noinline)) void resume(int thread) {
  Fibre& fibre = *fibres[thread];
  current = &fibre;
  threadIdx = {static_cast<unsigned>(thread), 0};
  if (_setjmp(scheduler) != 0) return;
  if (fibre.started) _longjmp(fibre.place, 1);
  fibre.started = true;
  getcontext(&fibre.start);
  fibre.start.uc_stack.ss_sp = fibre.stack.get();
  fibre.start.uc_stack.ss_size = kStackBytes;
  fibre.start.uc_link = nullptr;
  makecontext(&fibre.start, fibre_main, 0);
  setcontext(&fibre.start);
}

bool all_in(int begin, int end, State state) {
  return std::all_of(fibres.begin() + begin, fibres.begin() + end,
                     [&](const auto& fibre) { return fibre->state == state; });
}

void release_warp(int begin) {
  Fibre& first = *fibres[begin];
  for (int i = begin; i < begin + kWarp; ++i) {
    Fibre& fibre = *fibres[i];
    if (fibre.operation != first.operation || fibre.step != first.step) {
      failure = "threads of a warp disagree on the operation";
      return;
    }
    fibre.received = fibres[begin + ((i - begin) ^ fibre.step)]->sent;
    fibre.state = State::kReady;
  }
}

// Lets waiting threads go on where all they wait for have arrived; false: nobody can.
bool release(int threads) {
  bool any = false;
  for (int begin = 0; begin < threads; begin += kWarp) {
    if (!all_in(begin, begin + kWarp, State::kAtWarp)) continue;
    release_warp(begin);
    any = true;
  }
  if (!any && all_in(0, threads, State::kAtBarrier)) {
    for (int i = 0; i < threads; ++i) fibres[i]->state = State::kReady;
    any = true;
  }
  return any;
}

void run_block(const std::vector<int>& order, std::mt19937* random) {
  const int threads = static_cast<int>(order.size());
  std::vector<int> turn = order;
  for (int i = 0; i < threads; ++i) fibres[i]->state = State::kReady;
  while (failure == nullptr) {
    if (random != nullptr) std::shuffle(turn.begin(), turn.end(), *random);
    for (int thread : turn) {
      if (fibres[thread]->state == State::kReady && failure == nullptr) resume(thread);
    }
    if (failure != nullptr || all_in(0, threads, State::kDone)) return;
    if (!release(threads)) failure = "deadlock: some threads wait for others that never come";
  }
}

}  // namespace

void* shared_memory() { return shared; }
void block_barrier() { pause(State::kAtBarrier); }

uint64_t exchange(unsigned mask, int operation, int step, uint64_t bits) {
  if (mask != 0xffffffffu) fail("only whole warps are emulated");
  current->operation = operation;
  current->step = step;
  current->sent = bits;
  pause(State::kAtWarp);
  return current->received;
}

void fail(const char* reason) {
  failure = reason;
  _longjmp(scheduler, 1);
}

}  // namespace emulation

using namespace ops_dcn::cuda;

#define OPS_DCN_EXPORT extern "C" __attribute__((visibility("default")))

// Launches a kernel; null, or why it failed. `order` of threads and blocks: 0 ascending,
// 1 descending, others random by this seed.
OPS_DCN_EXPORT const char* emulation_launch(
    void (*kernel)(Arguments), const Arguments* arguments, const Launch* launch, unsigned order) {
  using namespace emulation;
  const int threads = static_cast<int>(launch->block);
  if (threads % kWarp != 0 || threads > 1024) return "block is not made of whole warps";
  while (static_cast<int>(fibres.size()) < threads) fibres.push_back(std::make_unique<Fibre>());
  for (auto& fibre : fibres) fibre->started = fibre->started && failure == nullptr;
  emulation::kernel = kernel;
  emulation::arguments = arguments;
  failure = nullptr;
  blockDim = {launch->block, 1};
  gridDim = {launch->grid_x, launch->grid_y};
  std::mt19937 random(order);
  std::vector<int> turn(threads);
  std::iota(turn.begin(), turn.end(), 0);
  if (order == 1) std::reverse(turn.begin(), turn.end());
  std::vector<unsigned> blocks(static_cast<std::size_t>(launch->grid_x) * launch->grid_y);
  std::iota(blocks.begin(), blocks.end(), 0u);
  if (order == 1) std::reverse(blocks.begin(), blocks.end());
  if (order > 1) std::shuffle(blocks.begin(), blocks.end(), random);

  const std::size_t bytes = launch->shared_bytes;
  std::vector<uint4> memory((bytes + kGuardBytes + 15) / 16 + 1);
  shared = reinterpret_cast<unsigned char*>(memory.data());
  for (unsigned block : blocks) {
    blockIdx = {block % launch->grid_x, block / launch->grid_x};
    std::memset(shared, kPoison, bytes);
    std::memset(shared + bytes, kGuard, kGuardBytes);
    run_block(turn, order > 1 ? &random : nullptr);
    if (failure != nullptr) return failure;
    for (std::size_t i = 0; i < kGuardBytes; ++i) {
      if (shared[bytes + i] != kGuard) return "write beyond shared memory";
    }
  }
  return nullptr;
}

OPS_DCN_EXPORT const char* emulation_unsupported(const Shape* shape) {
  return unsupported(*shape);
}

OPS_DCN_EXPORT void emulation_plan_forward(
    const Shape* shape, int dtype, int alignment, const Policy* policy, ForwardPlan* plan) {
  *plan = plan_forward(*shape, static_cast<Dtype>(dtype), alignment, Device{90}, *policy);
}

OPS_DCN_EXPORT void emulation_plan_backward(
    const Shape* shape, int dtype, int alignment, int sm, bool deterministic, const Policy* policy,
    BackwardPlan* plan) {
  *plan = plan_backward(
      *shape, static_cast<Dtype>(dtype), alignment, Device{sm}, deterministic, *policy);
}

// Sizes of what ctypes mirrors.
OPS_DCN_EXPORT const int emulation_sizes[] = {
    sizeof(Shape), sizeof(Tiling), sizeof(Arguments), sizeof(Policy), sizeof(ForwardPlan),
    sizeof(BackwardPlan),
};
