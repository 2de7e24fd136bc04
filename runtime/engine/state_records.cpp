#include "runtime/engine/state_records.h"

#include <bit>
#include <string_view>

#include "runtime/base/check.h"
#include "runtime/base/dtype.h"

namespace plumb {

namespace {

// The fp32 value of an element as bits; of 16 bits alone where there is no master.
uint32_t get_bits(const WeightPlace& place, int64_t i) noexcept {
    if (place.dtype == Dtype::f32) return static_cast<const uint32_t*>(place.weight)[i];
    const uint16_t half = static_cast<const uint16_t*>(place.weight)[i];
    if (place.dtype == Dtype::f16)
        return place.master != nullptr ? static_cast<const uint32_t*>(place.master)[i]
                                       : std::bit_cast<uint32_t>(f16_value(half));
    const uint16_t low =
        place.master != nullptr ? static_cast<const uint16_t*>(place.master)[i] : uint16_t{0};
    return join_master({half, low});
}

void set_bits(const WeightPlace& place, int64_t i, uint32_t bits) noexcept {
    if (place.dtype == Dtype::f32) {
        static_cast<uint32_t*>(place.weight)[i] = bits;
        return;
    }
    auto* half = static_cast<uint16_t*>(place.weight);
    if (place.dtype == Dtype::f16) {
        half[i] = f16_bits(std::bit_cast<float>(bits));
        if (place.master != nullptr) static_cast<uint32_t*>(place.master)[i] = bits;
        return;
    }
    const MasterPair pair = split_master(bits);
    half[i] = pair.high;
    if (place.master != nullptr) static_cast<uint16_t*>(place.master)[i] = pair.low;
}

}  // namespace

std::vector<TensorRecord> state_records(const std::vector<Param>& params, bool training,
                                        Dtype dtype) {
    std::vector<TensorRecord> records;
    for (const Param& param : params) {
        const Dtype own = param.is_matrix() ? dtype : Dtype::f32;
        const auto add = [&](const char* stream, Dtype stored) {
            records.push_back(make_tensor_record(stream, param.name, stored, param.shape));
        };
        add("param", own);
        if (!training || !param.trainable) continue;
        if (own == Dtype::bf16) add("master_lo", Dtype::u16);
        if (own == Dtype::f16) add("master", Dtype::f32);
        add("moment1", Dtype::f32);
        add("moment2", Dtype::f32);
    }
    if (training && dtype == Dtype::f16)
        records.push_back(make_tensor_record("state", "loss_scale", Dtype::f32, make_shape(2)));
    return records;
}

void put_weights(const WeightPlace& place, int64_t first, int64_t count, const char* stream,
                 Dtype dtype, const void* values) noexcept {
    const bool low = std::string_view(stream) == "master_lo";
    CHECK(low == (dtype == Dtype::u16));
    for (int64_t i = 0; i < count; ++i) {
        uint32_t bits = 0;
        if (dtype == Dtype::f32) {
            bits = static_cast<const uint32_t*>(values)[i];
        } else {
            const uint16_t half = static_cast<const uint16_t*>(values)[i];
            if (low)
                bits = join_master({static_cast<uint16_t>(get_bits(place, first + i) >> 16), half});
            else
                bits = dtype == Dtype::bf16 ? uint32_t{half} << 16
                                            : std::bit_cast<uint32_t>(f16_value(half));
        }
        set_bits(place, first + i, bits);
    }
}

}  // namespace plumb
