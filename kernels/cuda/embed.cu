#include "kernels/cuda/kernel_list.h"
#include "kernels/cuda/scratch.h"
#include "kernels/cuda/values.h"

namespace plumb::cuda {

namespace {

constexpr int kThreads = 256;

// Rows are moved by warps; kStep is kPack<T>, or 1 where rows do not start on packs.
__device__ __forceinline__ int64_t first_row() {
    return static_cast<int64_t>(blockIdx.x) * (kThreads / kWarp) + threadIdx.x / kWarp;
}
__device__ __forceinline__ int64_t row_stride() {
    return static_cast<int64_t>(gridDim.x) * (kThreads / kWarp);
}
template <typename T, int kStep, typename Body>
__device__ __forceinline__ void for_each_of_lane(int64_t size, const Body& body) {
#pragma unroll 4
    for (int64_t i = threadIdx.x % kWarp * kStep; i < size; i += kWarp * kStep) body(i);
}

template <typename T, int kStep>
__global__ void __launch_bounds__(kThreads)
    embed_rows(T* __restrict__ x, const T* __restrict__ wte, const T* __restrict__ wpe,
               const int32_t* __restrict__ tokens, const int32_t* __restrict__ positions,
               int64_t rows, int64_t size) {
    for (int64_t row = first_row(); row < rows; row += row_stride()) {
        const T* e = wte + tokens[row] * size;
        const int64_t position = wpe != nullptr ? positions[row] : -1;
        if (position < 0) {
            for_each_of_lane<T, kStep>(size, [&](int64_t i) {
                store_some(x + row * size + i, load_some(e + i, kStep), kStep);
            });
            continue;
        }
        const T* p = wpe + position * size;
        for_each_of_lane<T, kStep>(size, [&](int64_t i) {
            Pack<T> sum = load_some(e + i, kStep);
            const Pack<T> added = load_some(p + i, kStep);
            for (int k = 0; k < kStep; ++k)
                sum.value[k] = narrow<T>(widen(sum.value[k]) + widen(added.value[k]));
            store_some(x + row * size + i, sum, kStep);
        });
    }
}

// y[b] = x[b, selected[b]]
template <typename T, int kStep>
__global__ void __launch_bounds__(kThreads)
    copy_rows(T* __restrict__ y, const T* __restrict__ x, const int32_t* __restrict__ selected,
              int64_t batch, int64_t tokens, int64_t size) {
    for (int64_t b = first_row(); b < batch; b += row_stride()) {
        const T* from = x + (b * tokens + selected[b]) * size;
        for_each_of_lane<T, kStep>(size, [&](int64_t i) {
            store_some(y + b * size + i, load_some(from + i, kStep), kStep);
        });
    }
}

// The gradient of a table: rows of dx are sorted by their key (a token, or a position), stably, by
// digits of kSortBits from the lowest; then each block adds a tile of sorted rows. Every block has
// the same work whatever repeats, and a key's rows are added in their order, tile by tile.
struct Entry {
    int32_t key;
    int32_t row;
};
// Entries that have not been sorted yet are the keys themselves.
__device__ __forceinline__ Entry entry_at(const Entry* from, const int32_t* keys, int64_t i) {
    return from != nullptr ? from[i] : Entry{keys[i], static_cast<int32_t>(i)};
}
__device__ __forceinline__ int digit_of(int32_t key, int shift) {
    return static_cast<int>(static_cast<uint32_t>(key) >> shift & (kSortBins - 1U));
}

// counts[tile][digit]
__global__ void __launch_bounds__(kSortTile)
    count_digits(int32_t* counts, const Entry* from, const int32_t* keys, int64_t rows, int shift) {
    auto* bins = reinterpret_cast<int32_t*>(block_shared());
    bins[threadIdx.x] = 0;
    __syncthreads();
    const int64_t i = static_cast<int64_t>(blockIdx.x) * kSortTile + threadIdx.x;
    if (i < rows) atomicAdd(bins + digit_of(entry_at(from, keys, i).key, shift), 1);
    __syncthreads();
    counts[i] = bins[threadIdx.x];
}

// Counts become places: digits in order and, of one digit, tiles in order. One block, a thread for
// each digit.
__global__ void __launch_bounds__(kSortBins) place_digits(int32_t* counts, int64_t tiles) {
    auto* sums = reinterpret_cast<int32_t*>(block_shared());
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
    const int warp = static_cast<int>(threadIdx.x) / kWarp;
    int32_t total = 0;
#pragma unroll 8
    for (int64_t t = 0; t < tiles; ++t) total += counts[t * kSortBins + threadIdx.x];
    int32_t through = total;  // of the warp's digits up to this one
    for (int step = 1; step < kWarp; step *= 2) {
        const int32_t before = __shfl_up_sync(kAllLanes, through, step);
        if (lane >= step) through += before;
    }
    if (lane == kWarp - 1) sums[warp] = through;
    __syncthreads();
    int32_t place = through - total;
    for (int w = 0; w < warp; ++w) place += sums[w];
#pragma unroll 8
    for (int64_t t = 0; t < tiles; ++t) {
        const int32_t count = counts[t * kSortBins + threadIdx.x];
        counts[t * kSortBins + threadIdx.x] = place;
        place += count;
    }
}

__global__ void __launch_bounds__(kSortTile)
    move_entries(Entry* to, const int32_t* places, const Entry* from, const int32_t* keys,
                 int64_t rows, int shift) {
    auto* digits = reinterpret_cast<int32_t*>(block_shared());
    const int self = static_cast<int>(threadIdx.x);
    const int64_t tile = blockIdx.x, i = tile * kSortTile + self;
    const Entry entry = i < rows ? entry_at(from, keys, i) : Entry{0, 0};
    const int digit = digit_of(entry.key, shift);
    digits[self] = digit;
    __syncthreads();
    if (i >= rows) return;
    int rank = 0;
#pragma unroll 8
    for (int other = 0; other < self; ++other) rank += digits[other] == digit ? 1 : 0;
    to[places[tile * kSortBins + digit] + rank] = entry;
}

template <typename T>
struct Sums {
    float value[kPack<T>];
};
template <typename T, int kStep>
__device__ __forceinline__ Sums<T> load_sums(const float* from) {
    constexpr int kWhole = kStep < kPack<float> ? 1 : kPack<float>;
    Sums<T> sums = {};
    for (int k = 0; k < kStep; k += kWhole) {
        const Pack<float> pack = load_some(from + k, kWhole);
        for (int j = 0; j < kWhole; ++j) sums.value[k + j] = pack.value[j];
    }
    return sums;
}
template <typename T, int kStep>
__device__ __forceinline__ void store_sums(float* to, const Sums<T>& sums) {
    constexpr int kWhole = kStep < kPack<float> ? 1 : kPack<float>;
    for (int k = 0; k < kStep; k += kWhole) {
        Pack<float> pack = {};
        for (int j = 0; j < kWhole; ++j) pack.value[j] = sums.value[k + j];
        store_some(to + k, pack, kWhole);
    }
}

// Whether the sorted row at `place` has the key of the one before.
__device__ __forceinline__ bool continues(const Entry* sorted, int64_t place) {
    return place > 0 && sorted[place - 1].key == sorted[place].key;
}

// A tile of sorted rows, with where the sum of a row's key goes on from, and to: the table, or
// heads[tile] for the tile's first key when that began in a tile before (its first row then starts
// from nothing).
struct Place {
    int64_t row;  // of dx
    int64_t to;   // element of the table, or of heads
    bool begins;  // the first row of its key in this tile
    bool ends;    // the last one
    bool head;
};

__device__ __forceinline__ void find_places(Place* places, const Entry* sorted, int64_t begin,
                                            int count, int64_t rows, int64_t size) {
    const int r = static_cast<int>(threadIdx.x);
    if (r < count) {
        const int64_t at = begin + r;
        const int32_t key = sorted[at].key;
        const bool head = continues(sorted, begin) && key == sorted[begin].key;
        places[r] = {sorted[at].row * size, head ? begin / kRunRows * size : key * size,
                     r == 0 || !continues(sorted, at),
                     r + 1 == count || at + 1 == rows || !continues(sorted, at + 1), head};
    }
    __syncthreads();
}

// Within a tile, rows of a key are added to the key's row of the table one by one.
template <typename T, int kStep>
__global__ void __launch_bounds__(kThreads)
    add_runs(float* table, float* heads, const T* __restrict__ dx, const Entry* __restrict__ sorted,
             int64_t rows, int64_t size) {
    constexpr int kAhead = 4;
    static_assert(kRunRows == kWarp && kRunRows % kAhead == 0);
    auto* places = reinterpret_cast<Place*>(block_shared());
    const int64_t begin = static_cast<int64_t>(blockIdx.x) * kRunRows;
    const int count = static_cast<int>(rows - begin < kRunRows ? rows - begin : kRunRows);
    find_places(places, sorted, begin, count, rows, size);
    const int64_t stride = static_cast<int64_t>(gridDim.y) * blockDim.x * kStep;
    int64_t i = (static_cast<int64_t>(blockIdx.y) * blockDim.x + threadIdx.x) * kStep;
    for (; i < size; i += stride) {
        Sums<T> sum = {};
        for (int first = 0; first < count; first += kAhead) {
            // Keys differ, so what the table holds can be read before other sums are written.
            Pack<T> ahead[kAhead];
            Sums<T> before[kAhead];
#pragma unroll
            for (int r = 0; r < kAhead; ++r) {
                if (first + r >= count) continue;
                const Place& place = places[first + r];
                ahead[r] = load_some(dx + place.row + i, kStep);
                if (place.begins && !place.head)
                    before[r] = load_sums<T, kStep>(table + place.to + i);
            }
#pragma unroll
            for (int r = 0; r < kAhead; ++r) {
                if (first + r >= count) continue;
                const Place& place = places[first + r];
                // -0 + x is x for every x.
                if (place.begins && place.head)
                    for (float& v : sum.value) v = -0.0F;
                if (place.begins && !place.head) sum = before[r];
                for (int k = 0; k < kStep; ++k) sum.value[k] += widen(ahead[r].value[k]);
                if (place.ends)
                    store_sums<T, kStep>((place.head ? heads : table) + place.to + i, sum);
            }
        }
    }
}

// Adds the heads of a key, tile after tile, to its row of the table: the block of the first one.
__global__ void __launch_bounds__(kThreads)
    add_heads(float* table, const float* __restrict__ heads, const Entry* __restrict__ sorted,
              int64_t rows, int64_t size) {
    const int64_t first = blockIdx.x + int64_t{1}, begin = first * kRunRows;
    const int32_t key = sorted[begin].key;
    const int64_t before = begin - kRunRows - 1;
    if (!continues(sorted, begin) || (before >= 0 && sorted[before].key == key)) return;
    int64_t low = begin, high = rows;  // sorted[low] has the key, sorted[high] has not
    while (high - low > 1) {
        const int64_t middle = (low + high) / 2;
        (sorted[middle].key == key ? low : high) = middle;
    }
    const int64_t last = low / kRunRows;
    const int64_t stride = static_cast<int64_t>(gridDim.y) * kThreads;
    for (int64_t i = static_cast<int64_t>(blockIdx.y) * kThreads + threadIdx.x; i < size;
         i += stride) {
        float sum = table[key * size + i];
#pragma unroll 8
        for (int64_t t = first; t <= last; ++t) sum += heads[t * size + i];
        table[key * size + i] = sum;
    }
}

int64_t row_blocks(int64_t rows) {
    constexpr int64_t kBlocksMax = 8192;
    const int64_t blocks = ceil_div(rows, kThreads / kWarp);
    return blocks < kBlocksMax ? blocks : kBlocksMax;
}
int64_t column_blocks(int64_t columns, int threads) {
    constexpr int64_t kBlocksMax = 1024;
    const int64_t blocks = ceil_div(columns, threads);
    return blocks < kBlocksMax ? blocks : kBlocksMax;
}

struct SortScratch {
    Entry* entries[2];
    int32_t* counts;
    float* heads;
};
SortScratch sort_scratch(void* scratch, int64_t rows, int64_t size) {
    const SortedRowsLayout layout = sorted_rows_layout(rows, size);
    auto* bytes = static_cast<char*>(scratch);
    const auto at = [&](int64_t offset) { return static_cast<void*>(bytes + offset); };
    return {{static_cast<Entry*>(at(0)), static_cast<Entry*>(at(layout.entries_bytes))},
            static_cast<int32_t*>(at(2 * layout.entries_bytes)),
            static_cast<float*>(at(2 * layout.entries_bytes + layout.counts_bytes))};
}

// Rows in the order of their keys, each below `key_count`.
const Entry* sort_rows(const SortScratch& scratch, const int32_t* keys, int64_t rows,
                       int64_t key_count, void* stream) {
    constexpr int64_t kSharedBytes = kSortBins * 4;
    const int64_t tiles = ceil_div(rows, kSortTile);
    const Entry* from = nullptr;
    int turn = 0;
    for (int shift = 0; shift == 0 || (key_count - 1) >> shift > 0; shift += kSortBits) {
        Entry* to = scratch.entries[turn++ % 2];
        launch<count_digits>({tiles, kSortTile, stream, kSharedBytes}, scratch.counts, from, keys,
                             rows, shift);
        launch<place_digits>({1, kSortBins, stream, kSharedBytes}, scratch.counts, tiles);
        launch<move_entries>({tiles, kSortTile, stream, kSharedBytes}, to,
                             static_cast<const int32_t*>(scratch.counts), from, keys, rows, shift);
        from = to;
    }
    return from;
}

// table[keys[n]] += dx[n]
template <typename T, int kStep>
void add_by_key(const KernelArgs& args, float* table, const int32_t* keys, int64_t key_count) {
    const Shape& shape = args.shape[EmbedBackwardOperands::dx];
    const int64_t rows = shape.rows(), size = shape.last();
    const SortScratch scratch = sort_scratch(args.scratch, rows, size);
    const Entry* sorted = sort_rows(scratch, keys, rows, key_count, args.stream);
    const int64_t tiles = ceil_div(rows, kRunRows), columns = size / kStep;
    const int threads = columns < kThreads ? static_cast<int>(align_up(columns, kWarp)) : kThreads;
    launch<add_runs<T, kStep>>({tiles, threads, args.stream, kRunRows * int64_t{sizeof(Place)},
                                column_blocks(columns, threads)},
                               table, scratch.heads,
                               static_cast<const T*>(args.at<T>(EmbedBackwardOperands::dx)), sorted,
                               rows, size);
    launch<add_heads>({tiles - 1, kThreads, args.stream, 0, column_blocks(size, kThreads)}, table,
                      static_cast<const float*>(scratch.heads), sorted, rows, size);
}

template <typename T>
void embed(const KernelArgs& args) noexcept {
    using O = EmbedOperands;
    const int64_t rows = args.shape[O::x].rows(), size = args.shape[O::x].last();
    ASSERT(args.shape[O::wte].last() == size && args.shape[O::tokens].elements() == rows);
    const Launch at{row_blocks(rows), kThreads, args.stream};
    const auto* wte = static_cast<const T*>(args.at<T>(O::wte));
    const auto* wpe = static_cast<const T*>(args.at<T>(O::wpe));
    const auto* tokens = static_cast<const int32_t*>(args.at<int32_t>(O::tokens));
    const auto* positions = static_cast<const int32_t*>(args.at<int32_t>(O::positions));
    if (size % kPack<T> == 0)
        launch<embed_rows<T, kPack<T>>>(at, args.at<T>(O::x), wte, wpe, tokens, positions, rows,
                                        size);
    else
        launch<embed_rows<T, 1>>(at, args.at<T>(O::x), wte, wpe, tokens, positions, rows, size);
}

template <typename T>
void embed_backward(const KernelArgs& args) noexcept {
    using O = EmbedBackwardOperands;
    const int64_t rows = args.shape[O::dx].rows(), size = args.shape[O::dx].last();
    ASSERT(args.scratch_bytes >= sorted_rows_layout(rows, size).total());
    ASSERT(rows <= 0x7FFFFFFF);
    const int operands[][2] = {{O::dwte, O::tokens}, {O::dwpe, O::positions}};
    for (const auto& [table, keys] : operands) {
        if (!args.has(table)) continue;
        ASSERT(args.shape[table].last() == size && args.shape[keys].elements() == rows);
        const auto* key = static_cast<const int32_t*>(args.at<int32_t>(keys));
        if (size % kPack<T> == 0)
            add_by_key<T, kPack<T>>(args, args.at<float>(table), key, args.shape[table].dim[0]);
        else
            add_by_key<T, 1>(args, args.at<float>(table), key, args.shape[table].dim[0]);
    }
}

template <typename T>
void select_rows(const KernelArgs& args) noexcept {
    using O = SelectRowsOperands;
    const int64_t batch = args.shape[O::x].dim[0], tokens = args.shape[O::x].dim[1];
    const int64_t size = args.shape[O::x].last();
    ASSERT(args.shape[O::y].elements() == batch * size);
    const Launch at{row_blocks(batch), kThreads, args.stream};
    const auto* x = static_cast<const T*>(args.at<T>(O::x));
    const auto* rows = static_cast<const int32_t*>(args.at<int32_t>(O::rows));
    if (size % kPack<T> == 0)
        launch<copy_rows<T, kPack<T>>>(at, args.at<T>(O::y), x, rows, batch, tokens, size);
    else
        launch<copy_rows<T, 1>>(at, args.at<T>(O::y), x, rows, batch, tokens, size);
}

}  // namespace

void add_embed(KernelTable& table) noexcept {
    set_kernels(table, OpKind::embed, embed<float>, embed<Bf16>, embed<F16>);
    set_kernels(table, OpKind::embed_backward, embed_backward<float>, embed_backward<Bf16>,
                embed_backward<F16>);
    set_kernels(table, OpKind::select_rows, select_rows<float>, select_rows<Bf16>,
                select_rows<F16>);
}

}  // namespace plumb::cuda
